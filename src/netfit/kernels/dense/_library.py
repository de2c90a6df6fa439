"""The compiled kernels, one library a precision."""

import ctypes
import functools

from netfit.errors import ConfigError, did_you_mean
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import source

_PRECISIONS = ("fp32", "int8", "bits")  # their places are the values of PRECISION in dense.c
_SIZES = (
    "batch", "rows", "channels", "words", "height", "width", "taps_h", "taps_w", "stride", "padding", "dilation",
    "out_h", "out_w", "planes", "packed", "kc", "mc", "nc",
)  # fmt: skip


class Sizes(ctypes.Structure):
    """`Shape` of dense.c."""

    _fields_ = [(name, ctypes.c_int64) for name in _SIZES]


@functools.cache
def library(precision: str) -> ctypes.CDLL:
    """The kernels of a precision.

    Raises:
        ConfigError: no such precision.
        TargetUnavailable: there is no C compiler.
    """
    if precision not in _PRECISIONS:
        raise ConfigError(f"no kernels for precision {precision!r}; {did_you_mean(precision, _PRECISIONS)}")
    number = _PRECISIONS.index(precision)
    text = f"{source('vectors.h')}\n#define PRECISION {number}\n{source('dense.c')}"
    code = compile_c(text, f"dense_{precision}", ["-ffp-contract=fast"])
    for name in ("tile_rows", "tile_vectors", "lanes", "most_kc", "scratch_words", "offset"):
        getattr(code, f"dense_{name}").restype = ctypes.c_int64
    code.dense_scratch_words.argtypes = [ctypes.POINTER(Sizes)]
    code.dense.argtypes = [ctypes.POINTER(Sizes), *[ctypes.c_void_p] * 5]
    code.dense.restype = None
    return code
