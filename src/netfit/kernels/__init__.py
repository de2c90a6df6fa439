"""Native code, one way of building and registering it.

C sources are compiled at first use by the compiler found (or the packaged zig of the extra `cc`), cached by
content, and registered as torch operators beside a plain torch reference. Without a compiler the reference
runs; `NETFIT_CC` names a compiler, and `NETFIT_CC=none` asks for the references. Operators for a runtime are C++
(`NETFIT_CXX`) and have no reference: without a compiler their layers cannot run there.
"""

from netfit.kernels._bits import binary_gemm, pack_planes, pack_signs, planes_gemm
from netfit.kernels._compile import compile_c
from netfit.kernels._extension import openvino_extension
from netfit.kernels._groups import pack_groups, unpack_groups
from netfit.kernels._mask import pack_mask, unpack_mask
from netfit.kernels._ops import custom_op
from netfit.kernels._ordered import ordered_matmul
from netfit.kernels._toolchain import Toolchain, toolchain

__all__ = [
    "Toolchain",
    "binary_gemm",
    "compile_c",
    "custom_op",
    "openvino_extension",
    "ordered_matmul",
    "pack_groups",
    "pack_mask",
    "pack_planes",
    "pack_signs",
    "planes_gemm",
    "toolchain",
    "unpack_groups",
    "unpack_mask",
]
