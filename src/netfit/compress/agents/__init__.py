"""Galen's agents: reinforcement learning that walks the layers and prunes, quantizes, or does both.

From "Towards Hardware-Specific Automatic Compression of Neural Networks" (2022). Imported by a search that uses them
only, because the sampler derives from one of Optuna's classes.
"""

from ._sampler import DdpgSampler
from ._states import Damage, Features, measure_damage

__all__ = ["Damage", "DdpgSampler", "Features", "measure_damage"]
