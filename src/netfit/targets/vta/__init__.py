"""The VTA accelerator: instruction set, functional execution, exact rules of what it can run, and a cycle model.

Hardware with one matrix instruction, three queues and four token FIFOs. `VTA` is the target; `lower` makes the program
of a convolution, `simulate` runs it, `why_invalid` says without running which loop nests cannot be, `check` proves that
its tokens order everything.
"""

from ._config import Config
from ._conv import Conv, Knobs, all_knobs
from ._isa import decode, disassemble, encode
from ._lower import lower
from ._program import Program
from ._rules import why_invalid
from ._simulator import check, execute, simulate, times
from ._timing import Timing

__all__ = [
    "Config",
    "Conv",
    "Knobs",
    "Program",
    "Timing",
    "all_knobs",
    "check",
    "decode",
    "disassemble",
    "encode",
    "execute",
    "lower",
    "simulate",
    "times",
    "why_invalid",
]
