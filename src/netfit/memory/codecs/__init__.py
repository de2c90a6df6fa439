"""Ways to keep a tensor between the forward and the backward pass in fewer bytes."""

from ._base import Codec, Packed
from ._compose import Compose
from ._exact import Cast, Keep, Recompute, ShapeOnly, SignMask
from ._kbit import KBit
from ._parse import parse
from ._pool import Pool
from ._sparse import BlockSparse, weight_gradient

__all__ = [
    "BlockSparse",
    "Cast",
    "Codec",
    "Compose",
    "KBit",
    "Keep",
    "Packed",
    "Pool",
    "Recompute",
    "ShapeOnly",
    "SignMask",
    "parse",
    "weight_gradient",
]
