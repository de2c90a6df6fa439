"""Change a network by a policy: sites, techniques, the one verb `apply`, and the hooks behind it."""

from ._apply import apply
from ._hooks import CallHook, install, plain
from ._plan import QuantPlan
from ._policy import Policy
from ._quantize import Quantization, Quantize, calibrate, freeze, quantization
from ._technique import Site, Stage, Technique, sites

__all__ = [
    "CallHook",
    "Policy",
    "QuantPlan",
    "Quantization",
    "Quantize",
    "Site",
    "Stage",
    "Technique",
    "apply",
    "calibrate",
    "freeze",
    "install",
    "plain",
    "quantization",
    "sites",
]
