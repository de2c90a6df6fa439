"""Dense layers in whole numbers for few rows of input: what a quantized network computes, from float32 to float32."""

import ctypes
import functools

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import source

__all__ = ["Codes", "IntegerLinear"]

_LANES = 16  # outputs side by side
_MOST_INPUTS = 1 << 16  # whose sum of products of 8 bits fits 32


class Codes(ctypes.Structure):
    """How numbers become codes: clamp(round(x / scale) + zero, 0, top).

    Args:
        scale: between two codes.
        zero: code of the number zero.
        top: largest code, at most 255.
    """

    _fields_ = (("scale", ctypes.c_float), ("zero", ctypes.c_float), ("top", ctypes.c_float))


class _Layer(ctypes.Structure):
    """`Layer` of linear.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "k", "planes", "bits", "relu")),
        *((name, ctypes.c_void_p) for name in ("weight", "gain", "shift")),
        ("codes", Codes),
        ("early", Codes),
    )


class IntegerLinear:
    """A dense layer of integer weights on codes of its input: y = sum(weight * code) * gain + shift.

    Weights of -1 and +1 are kept as bits. With codes of 1 or 2 bits they are multiplied 64 at a time ("XNOR-Net:
    ImageNet Classification Using Binary Convolutional Neural Networks", Rastegari et al., 2016).

    Args:
        weight: int8 (outputs, inputs).
        gain: float32 (outputs,).
        shift: float32 (outputs,).
        codes: of the input.
        relu: negative results become 0.
        early: a rounding that the input goes through first, if any.

    Raises:
        ConfigError: shapes or types do not fit each other, or codes of more than 8 bits.
        TargetUnavailable: there is no C compiler.

    Example:
        >>> weight = torch.tensor([[1, -1]], dtype=torch.int8)
        >>> layer = IntegerLinear(weight, torch.ones(1), torch.zeros(1), Codes(1, 0, 9))
        >>> layer(torch.tensor([[5.0, 2.0], [20.0, 0.0]])).flatten().tolist()
        [3.0, 9.0]
    """

    def __init__(
        self, weight: Tensor, gain: Tensor, shift: Tensor, codes: Codes, relu: bool = False, early: Codes | None = None
    ) -> None:
        if weight.ndim != 2 or weight.dtype != torch.int8 or not 1 <= weight.shape[1] <= _MOST_INPUTS:
            raise ConfigError(
                f"a weight of shape {tuple(weight.shape)} and {weight.dtype}: give int8 (outputs, inputs)"
            )
        for name, x in (("gain", gain), ("shift", shift)):
            if x.shape != weight.shape[:1] or x.dtype != torch.float32:
                raise ConfigError(f"{name} of shape {tuple(x.shape)} and {x.dtype}: give float32 ({len(weight)},)")
        if not (0 < codes.top <= 255 and codes.scale > 0):
            raise ConfigError(f"codes of scale {codes.scale:g} up to {codes.top:g}: give a scale > 0 and at most 255")
        self._library = _library()
        signs = bool((weight.abs() == 1).all())
        planes = int(codes.top).bit_length() if signs and codes.top < 4 else 0
        bits = signs and not planes and bool(self._library.linear_expands_bits())
        self._keep = (_packed(weight, planes, bits), gain.contiguous(), shift.contiguous())
        self._outputs, self._inputs = weight.shape
        self._layer = _Layer(
            *weight.shape, planes, bits, relu, *(t.data_ptr() for t in self._keep), codes, early or Codes()
        )
        self._call = self._library.linear

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output.

        Args:
            x: float32 (n, inputs).

        Returns:
            float32 (n, outputs).

        Raises:
            ConfigError: another shape or type.
        """
        if x.ndim != 2 or x.shape[1] != self._inputs or x.dtype != torch.float32:
            raise ConfigError(f"an input of shape {tuple(x.shape)} and {x.dtype}: give float32 (n, {self._inputs})")
        x, out = x.contiguous(), torch.empty(len(x), self._outputs)
        if self._call(self._layer, len(x), x.data_ptr(), out.data_ptr()):
            raise MemoryError("a dense layer found no memory for its codes")
        return out


@functools.cache
def _library() -> ctypes.CDLL:
    library = compile_c(source("tile.h", "linear.c"), "linear")
    library.linear.argtypes = [ctypes.POINTER(_Layer), ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    return library


def _packed(weight: Tensor, planes: int, bits: bool) -> Tensor:
    """Weights in the order in which linear.c reads them."""
    inner = 64 if planes else 4
    rows, k = weight.shape
    full = torch.nn.functional.pad(weight, (0, -k % inner, 0, -rows % _LANES))
    blocks = full.reshape(-1, _LANES, full.shape[1] // inner, inner).transpose(1, 2).contiguous()
    if not (planes or bits):
        return blocks
    words = (blocks.reshape(-1, 64) > 0).long() << torch.arange(64)
    return words.sum(1)  # bits do not overlap, so that the sum is their union
