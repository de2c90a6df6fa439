"""Native code, one way of building and registering it.

C sources are compiled at first use by the compiler found (or the packaged zig of the extra `cc`), cached by
content, and registered as torch operators beside a plain torch reference. Without a compiler the reference
runs; `NETFIT_CC` names a compiler, and `NETFIT_CC=none` asks for the references.
"""

from netfit.kernels._bits import binary_gemm, pack_planes, pack_signs, planes_gemm
from netfit.kernels._compile import compile_c
from netfit.kernels._groups import pack_groups, unpack_groups
from netfit.kernels._ops import custom_op
from netfit.kernels._toolchain import Toolchain, toolchain

__all__ = [
    "Toolchain",
    "binary_gemm",
    "compile_c",
    "custom_op",
    "pack_groups",
    "pack_planes",
    "pack_signs",
    "planes_gemm",
    "toolchain",
    "unpack_groups",
]
