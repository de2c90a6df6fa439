"""Blocked matrix products and convolutions of our own: fp32, int8 and bit planes, one thread, batch after batch.

All three are one loop nest over 32-bit words (`csrc/dense.c`): a word is one fp32 channel, four int8 channels or 32
bits. `Prepared` is what a network would deploy, weights packed and memory reserved; `gemm`, `conv2d` and
`conv2d_planes` are torch operators with a plain torch reference. `naive` is the loop nest everybody writes first.
"""

from netfit.kernels.dense._naive import naive
from netfit.kernels.dense._ops import conv2d, conv2d_planes, gemm
from netfit.kernels.dense._prepared import Prepared, channel_words
from netfit.kernels.dense._shape import CHANNELS, Blocking, ConvShape, blocking

__all__ = [
    "CHANNELS",
    "Blocking",
    "ConvShape",
    "Prepared",
    "blocking",
    "channel_words",
    "conv2d",
    "conv2d_planes",
    "gemm",
    "naive",
]
