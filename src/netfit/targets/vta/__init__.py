"""The VTA accelerator: instruction set, functional execution, exact rules of what it can run, and a cycle model.

Hardware with one matrix instruction, three queues and four token FIFOs. `VTA` is the target; `lower` makes the program
of a convolution, `simulate` runs it, `why_invalid` says without running which loop nests cannot be, `check` proves that
its tokens order everything. `vta.isa` packs instructions into 128 bits, `vta.layout` tensors into words.
"""

from ._config import Config
from ._conv import Conv, Knobs, all_knobs
from ._features import estimate, features
from ._lower import lower
from ._program import Program
from ._rules import why_invalid
from ._simulator import Stats, check, simulate, times
from ._target import VTA, best_knobs
from ._timing import Timing, calibrate

__all__ = [
    "VTA",
    "Config",
    "Conv",
    "Knobs",
    "Program",
    "Stats",
    "Timing",
    "all_knobs",
    "best_knobs",
    "calibrate",
    "check",
    "estimate",
    "features",
    "lower",
    "simulate",
    "times",
    "why_invalid",
]
