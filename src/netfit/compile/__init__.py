"""The compiler: operators no library serves well, generated (`ops`), tuned (`tune`) and embedded (`embed`).

`ops` emits C for this machine and others, `tune` finds a fast valid configuration in few measurements, also where most
configurations do not run, `embed` brings an operator onto hardware with one matrix instruction.
"""

from . import embed, ops, tune
from ._moments import MomentKernels
from ._network import operators

__all__ = ["MomentKernels", "embed", "operators", "ops", "tune"]
