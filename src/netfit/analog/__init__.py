"""Will it survive noisy hardware? Noise at call sites, walking noise, hardening, and what limits a network.

Also here: `schedules` of the noise, `diagnostics` of what training under noise did, `mac` (ordered saturating
accumulation) and `crossbar` (resistive memory).
"""

from ._constant_scale import ConstantScale
from ._environment import environment, robustness
from ._harden import harden
from ._injection import Injection, sites
from ._midpoint import combine_midpoints, midpoint, multi_execution
from ._noise import AdditiveGaussian, MixedGaussian, MultiplicativeGaussian
from ._trainer import Trainer
from ._walk import Walk, walk

__all__ = [
    "AdditiveGaussian",
    "ConstantScale",
    "Injection",
    "MixedGaussian",
    "MultiplicativeGaussian",
    "Trainer",
    "Walk",
    "combine_midpoints",
    "environment",
    "harden",
    "midpoint",
    "multi_execution",
    "robustness",
    "sites",
    "walk",
]
