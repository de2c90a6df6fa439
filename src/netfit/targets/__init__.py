"""Hardware that says what a network costs: measured here, measured elsewhere, or computed; one table for all."""

from ._base import DeviceSpec, LinkSpec, Target
from ._host import HostCPU, fastest_runtime
from ._measure import Measurement, Timing, measure
from ._memory import PeakMemory
from ._parse import parse
from ._remote import Remote
from ._server import serve
from ._table import CostSummary, CostTable
from .systolic import SystolicArray

__all__ = [
    "CostSummary",
    "CostTable",
    "DeviceSpec",
    "HostCPU",
    "LinkSpec",
    "Measurement",
    "PeakMemory",
    "Remote",
    "SystolicArray",
    "Target",
    "Timing",
    "fastest_runtime",
    "measure",
    "parse",
    "serve",
]
