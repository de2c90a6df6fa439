"""One bit per value: all that the backward pass of ReLU and dropout needs of what they returned."""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import custom_op, source


def _check_bits(bits: Tensor, n: int) -> None:
    if bits.dtype != torch.uint8 or n < 0 or bits.numel() != -(-n // 8):
        raise ConfigError(f"{bits.numel()} values of {bits.dtype} for a mask of {n}: expected {-(-n // 8)} of uint8")


def _pack_reference(x: Tensor) -> Tensor:
    above = torch.nn.functional.pad((x.flatten() > 0).to(torch.uint8), (0, -x.numel() % 8)).reshape(-1, 8)
    return (above << torch.arange(8, dtype=torch.uint8, device=x.device)).sum(1, dtype=torch.uint8)


def _pack_fake(x: Tensor) -> Tensor:
    return x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)


def _pack_native() -> Callable[..., Tensor]:
    function = compile_c(source("mask.c"), "mask").pack_mask
    function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    function.restype = None

    def run(x: Tensor) -> Tensor:
        x, bits = x.float().contiguous(), _pack_fake(x)
        function(x.data_ptr(), x.numel(), bits.data_ptr())
        return bits

    return run


def _unpack_reference(bits: Tensor, level: float, n: int) -> Tensor:
    _check_bits(bits, n)
    above = (bits[:, None] >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1
    return above.flatten()[:n].float() * level


def _unpack_fake(bits: Tensor, level: float, n: int) -> Tensor:
    return bits.new_empty(n, dtype=torch.float32)


def _unpack_native() -> Callable[..., Tensor]:
    function = compile_c(source("mask.c"), "mask").unpack_mask
    function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p]
    function.restype = None

    def run(bits: Tensor, level: float, n: int) -> Tensor:
        _check_bits(bits, n)
        bits, x = bits.contiguous(), _unpack_fake(bits, level, n)
        function(bits.data_ptr(), n, level, x.data_ptr())
        return x

    return run


_pack = custom_op("pack_mask", _pack_reference, native=_pack_native, fake=_pack_fake)
_unpack = custom_op("unpack_mask", _unpack_reference, native=_unpack_native, fake=_unpack_fake)


def pack_mask(x: Tensor) -> Tensor:
    """Keep of each value whether it is above zero.

    Args:
        x: any shape, floating point.

    Returns:
        uint8 (ceil(n / 8),), the first value in the lowest bit.
    """
    out: Tensor = _pack(x)
    return out


def unpack_mask(bits: Tensor, level: float, n: int) -> Tensor:
    """Undo `pack_mask` for a tensor of two values.

    Args:
        bits: uint8 (ceil(n / 8),).
        level: value where the bit is set; 0 elsewhere.
        n: number of values.

    Returns:
        fp32 (n,).

    Raises:
        ConfigError: `bits` does not hold n bits.

    Example:
        >>> unpack_mask(pack_mask(torch.tensor([2.0, 0.0, 2.0])), level=2.0, n=3)
        tensor([2., 0., 2.])
    """
    out: Tensor = _unpack(bits, level, n)
    return out
