"""The loop nest everybody writes first, as a baseline."""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import source
from netfit.kernels.dense._shape import CHANNELS, ConvShape

_SUM = "static inline {sum} mac({sum} s, {value} x, {value} w) {{ return s + {term}; }}\n"
_TERMS = {
    torch.float32: ("float", "float", "x * w"),
    torch.int8: ("int32_t", "int8_t", "x * w"),
    torch.int32: ("int32_t", "uint32_t", "__builtin_popcount(x & w)"),
}
_ORDER = (
    "batch", "rows", "channels", "height", "width", "taps_h", "taps_w", "stride", "padding", "dilation",
)  # fmt: skip


def naive(shape: ConvShape, x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    """A convolution as seven plain loops, not vectorised, on given tensors.

    Args:
        shape: sizes.
        x: (batch, channels, height, width): fp32, int8, or int32 words of 32 binary channels (`channel_words`).
        weight: (rows, channels, taps_h, taps_w), of the same type.

    Returns:
        A call that computes the result again: fp32 or int32 (batch, rows, out_h, out_w). For words it is the number
        of ones that input and weight have in common.

    Raises:
        ConfigError: the tensors do not fit the shape.
        TargetUnavailable: there is no C compiler.
    """
    sizes = asdict(shape)
    if x.dtype == torch.int32:
        sizes["channels"] = -(-shape.channels // CHANNELS["bits"])
    want = (shape.batch, sizes["channels"], shape.height, shape.width)
    if x.shape != want or weight.shape != (shape.rows, want[1], shape.taps_h, shape.taps_w) or x.dtype != weight.dtype:
        raise ConfigError(
            f"input {tuple(x.shape)} {x.dtype} and weight {tuple(weight.shape)} {weight.dtype} do not fit {shape}"
        )
    x, weight, function = x.contiguous(), weight.contiguous(), _library(x.dtype).naive
    out = torch.empty(
        (shape.batch, shape.rows, shape.out_h, shape.out_w),
        dtype=torch.float32 if x.dtype == torch.float32 else torch.int32,
    )
    numbers = [ctypes.c_int64(n) for n in (*(sizes[name] for name in _ORDER), shape.out_h, shape.out_w)]
    tensors = x, weight, out  # kept alive as long as the call is

    def call() -> Tensor:
        function(*numbers, *(ctypes.c_void_p(t.data_ptr()) for t in tensors))
        return out

    return call


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL:
    if dtype not in _TERMS:
        raise ConfigError(f"no plain loop nest for {dtype}: float32, int8 or int32 words")
    total, value, term = _TERMS[dtype]
    text = source("naive.c")
    head, _, body = text.partition("/* x (batch")
    text = f"{head}{_SUM.format(sum=total, value=value, term=term)}/* x (batch{body}"
    # Loops are meant to stay what they are: the compiler may not turn them into vectors.
    flags = ["-ffp-contract=fast", "-fno-tree-vectorize", f"-DINPUT={value}", f"-DSUM={total}", "-DMAC=mac"]
    return compile_c(text, f"naive_{value}", flags)
