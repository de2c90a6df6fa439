"""How near operators run to the bounds of this machine, and which bound it is.

`measure_peaks` finds the roofs of one core. `Roofline` is the target that costs a network by them. `explain` puts the
measured time of an operator beside every bound of its loop nest: `blocked` for our own kernels, `plain` for a naive
nest, `least` for kernels whose nest is not known.
"""

from ._explain import Explanation, bounds, explain
from ._layers import Layer, explain_layers
from ._nests import Work, blocked, least, plain
from ._peaks import Peaks, measure_peaks
from ._target import Roofline
from ._traffic import Loop, Nest, Operand

__all__ = [
    "Explanation",
    "Layer",
    "Loop",
    "Nest",
    "Operand",
    "Peaks",
    "Roofline",
    "Work",
    "blocked",
    "bounds",
    "explain",
    "explain_layers",
    "least",
    "measure_peaks",
    "plain",
]
