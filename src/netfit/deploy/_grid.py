"""Where the values of a quantized tensor lie."""

from typing import NamedTuple


class Grid(NamedTuple):
    """Where the values of a tensor lie: ``x = scale * (q - zero_point)`` with q of 0 to ``levels - 1``."""

    scale: float
    zero_point: int = 0
    levels: int = 256
