"""Operators as generated C: products and convolutions in fp32, int8 and bits, depthwise ones, and those on Gaussians.

Every operator has a `space` of kernels, emits the text of one, knows its traffic and has a reference in plain torch. A
`Kernel` is one built: call it, read it, or export it as a C file with its own test.
"""

from ._build import build_program, emulator
from ._dense import BitConv2d, DepthwiseConv2d
from ._kernel import Kernel
from ._machine import Machine, machine
from ._operator import Operator
from ._parse import parse
from ._pfp import PfpConv2d, PfpDense, PfpMaxPool2d, PfpReLU
from ._product import Conv2d, Gemm

__all__ = [
    "BitConv2d",
    "Conv2d",
    "DepthwiseConv2d",
    "Gemm",
    "Kernel",
    "Machine",
    "Operator",
    "PfpConv2d",
    "PfpDense",
    "PfpMaxPool2d",
    "PfpReLU",
    "build_program",
    "emulator",
    "machine",
    "parse",
]
