"""What a model computes: operators with names, shapes, edges, counts, and each one as matrix products."""

from ._callsites import CallSite, CallSites
from ._gemms import Gemm
from ._trace import export_program, from_program, trace
from ._types import Op, TensorSpec, Workload

__all__ = [
    "CallSite",
    "CallSites",
    "Gemm",
    "Op",
    "TensorSpec",
    "Workload",
    "export_program",
    "from_program",
    "trace",
]
