"""The kernels as torch operators, each beside a plain torch reference."""

from collections.abc import Callable

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._ops import custom_op
from netfit.kernels.dense._library import library
from netfit.kernels.dense._prepared import Prepared
from netfit.kernels.dense._shape import ConvShape, Precision

_PRECISION: dict[torch.dtype, Precision] = {torch.float32: "fp32", torch.int8: "int8"}


def _shape(x: Tensor, w: Tensor, stride: int, padding: int, dilation: int) -> ConvShape:
    if x.ndim != 4 or w.ndim != 4 or x.shape[1] != w.shape[1]:
        raise ConfigError(
            f"input {tuple(x.shape)} and weight {tuple(w.shape)}: expected (batch, channels, height, width) and "
            "(rows, channels, taps, taps)"
        )
    batch, channels, height, width = x.shape
    return ConvShape(len(w), channels, height, width, w.shape[2], w.shape[3], stride, padding, dilation, batch)


def _precision(x: Tensor, w: Tensor) -> Precision:
    if x.dtype != w.dtype or x.dtype not in _PRECISION:
        raise ConfigError(f"operands of {x.dtype} and {w.dtype}: both must be float32, or both int8")
    return _PRECISION[x.dtype]


def _check_planes(x: Tensor, w: Tensor, planes: int) -> None:
    if x.dtype != torch.uint8 or w.dtype != torch.int8 or not 1 <= planes <= 8:
        raise ConfigError(f"{x.dtype} codes of {planes} bits and {w.dtype} weights: expected uint8, 1 to 8, int8")


def _conv2d_reference(x: Tensor, w: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    precision, _ = _precision(x, w), _shape(x, w, stride, padding, dilation)
    wide = torch.float32 if precision == "fp32" else torch.float64  # fp64 sums of int8 products are exact
    out = torch.nn.functional.conv2d(x.to(wide), w.to(wide), None, stride, padding, dilation)
    return out.to(torch.float32 if precision == "fp32" else torch.int32)


def _conv2d_fake(x: Tensor, w: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    h, v = (
        (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        for size, taps in zip(x.shape[2:], w.shape[2:], strict=True)
    )
    dtype = torch.float32 if x.dtype == torch.float32 else torch.int32
    return x.new_empty((x.shape[0], w.shape[0], h, v), dtype=dtype)


def _conv2d_native() -> Callable[..., Tensor]:
    library("fp32")  # fails here, and not at a call, when there is no compiler

    def run(x: Tensor, w: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        shape = _shape(x, w, stride, padding, dilation)
        return Prepared(shape, w, precision=_precision(x, w))(x.contiguous())

    return run


def _planes_reference(x: Tensor, w: Tensor, planes: int, stride: int, padding: int, dilation: int) -> Tensor:
    _check_planes(x, w, planes)
    _shape(x, w, stride, padding, dilation)
    codes, signs = (x & (2**planes - 1)).double(), torch.where(w > 0, 1.0, -1.0).double()
    return torch.nn.functional.conv2d(codes, signs, None, stride, padding, dilation).int()


def _planes_fake(x: Tensor, w: Tensor, planes: int, stride: int, padding: int, dilation: int) -> Tensor:
    return _conv2d_fake(x, w, stride, padding, dilation)


def _planes_native() -> Callable[..., Tensor]:
    library("bits")

    def run(x: Tensor, w: Tensor, planes: int, stride: int, padding: int, dilation: int) -> Tensor:
        _check_planes(x, w, planes)
        shape = _shape(x, w, stride, padding, dilation)
        return Prepared(shape, w, precision="bits", planes=planes)(x.contiguous())

    return run


_conv2d = custom_op("conv2d", _conv2d_reference, native=_conv2d_native, fake=_conv2d_fake)
_conv2d_planes = custom_op("conv2d_planes", _planes_reference, native=_planes_native, fake=_planes_fake)


def conv2d(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """Convolution without groups; int8 products are summed in int32.

    Args:
        x: (batch, channels, height, width), fp32 or int8.
        weight: (rows, channels, taps_h, taps_w), of the same type.
        stride, padding, dilation: along both axes; padding with zeros.

    Returns:
        (batch, rows, out_h, out_w), fp32 or int32.

    Raises:
        ConfigError: shapes or types do not fit each other.
    """
    out: Tensor = _conv2d(x, weight, stride, padding, dilation)
    return out


def gemm(a: Tensor, b: Tensor) -> Tensor:
    """Product of matrices; int8 products are summed in int32.

    Args:
        a: (m, k), fp32 or int8.
        b: (k, n), of the same type.

    Returns:
        (m, n), fp32 or int32.

    Raises:
        ConfigError: shapes or types do not fit each other.

    >>> a = torch.tensor([[1, 2]], dtype=torch.int8)
    >>> gemm(a, a.T.contiguous())
    tensor([[5]], dtype=torch.int32)
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ConfigError(f"a product of {tuple(a.shape)} and {tuple(b.shape)}: expected (m, k) and (k, n)")
    return conv2d(b[None, :, None], a[:, :, None, None])[0, :, 0]


def conv2d_planes(
    x: Tensor, weight: Tensor, planes: int = 1, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Tensor:
    """Bit-serial convolution: unsigned codes times weights of -1 and +1, one bit plane after the other.

    Twice the ones that codes and weights have in common, less the ones of the codes, weighed by the plane's power of
    two. "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients" (2016).

    Args:
        x: (batch, channels, height, width), uint8; only the lowest ``planes`` bits count.
        weight: (rows, channels, taps_h, taps_w), int8; above zero stands for +1, all else for -1.
        planes: bits of a code, 1 to 8.
        stride, padding, dilation: along both axes; padding with the code 0.

    Returns:
        int32 (batch, rows, out_h, out_w).

    Raises:
        ConfigError: shapes or types do not fit each other.
    """
    out: Tensor = _conv2d_planes(x, weight, planes, stride, padding, dilation)
    return out
