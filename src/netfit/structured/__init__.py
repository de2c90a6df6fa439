"""Structured layers that are faster than dense ones, or dense ones where they are not.

One primitive, the chain of Kronecker-sparse factors, is butterfly, Monarch, block-diagonal and low-rank layer at once:
one multiply with a hand-written backward pass, one projection of trained weights, and techniques for the policy.
"""

from ._chain import KSChain, KSPattern
from ._conv import MonarchConv2d
from ._linear import ButterflyLinear, KSLinear, LowRankLinear, MonarchLinear
from ._multiply import ks_multiply
from ._pixelfly import PixelflyLinear
from ._project import Projection, project
from ._techniques import Butterfly, LowRank, Monarch, Pixelfly

__all__ = [
    "Butterfly",
    "ButterflyLinear",
    "KSChain",
    "KSLinear",
    "KSPattern",
    "LowRank",
    "LowRankLinear",
    "Monarch",
    "MonarchConv2d",
    "MonarchLinear",
    "Pixelfly",
    "PixelflyLinear",
    "Projection",
    "ks_multiply",
    "project",
]
