"""Change a network by a policy: sites, techniques, the one verb `apply`, and the hooks behind it."""

from ._apply import apply
from ._artifact import load, open_model, save
from ._hooks import CallHook, install, plain
from ._policy import Policy
from ._quantize import Quantization, Quantize, calibrate
from ._technique import Site, Stage, Technique, sites

__all__ = [
    "CallHook",
    "Policy",
    "Quantization",
    "Quantize",
    "Site",
    "Stage",
    "Technique",
    "apply",
    "calibrate",
    "install",
    "load",
    "open_model",
    "plain",
    "save",
    "sites",
]
