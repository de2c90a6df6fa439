"""Codecs without an error, and plain casts."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels import pack_mask, unpack_mask

from ._base import Codec, Packed, Spec, flattened

__all__ = ["Cast", "Keep", "Recompute", "ShapeOnly", "SignMask"]

_FLOATS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float8_e4m3fn: "fp8"}


@dataclass(frozen=True)
class Keep(Codec):
    """The tensor itself."""

    lossless: ClassVar[bool] = True

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep a reference."""
        return Packed((x.detach(),), lambda t: t)

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """The tensor."""
        return ((shape, dtype),)

    def __str__(self) -> str:
        return "keep"


@dataclass(frozen=True)
class SignMask(Codec):
    """One bit per value, and the largest value: exact for the gradients of ReLU and dropout.

    ReLU's gradient asks only whether its result is above zero, and a dropout mask holds two values, zero and the
    largest. 1/32 of fp32.

    Args:
        scaled: look up the largest value; without, what is above zero comes back as 1, which is enough for ReLU.
    """

    lossless: ClassVar[bool] = True
    scaled: bool = True

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep the bits."""
        flat, restore = flattened(x)
        n = flat.numel()
        level = float(flat.max()) if n and self.scaled else 1.0

        def rebuild(bits: Tensor) -> Tensor:
            return restore(unpack_mask(bits, level, n))

        return Packed((pack_mask(flat),), rebuild)

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """Eight values a byte."""
        n = torch.Size(shape).numel()
        return (((-(-n // 8),), torch.uint8),)

    def __str__(self) -> str:
        return "mask"


@dataclass(frozen=True)
class ShapeOnly(Codec):
    """Nothing but the shape: all that the backward pass of pooling reads of its input."""

    lossless: ClassVar[bool] = True

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep nothing."""
        shape, stride, dtype, device = tuple(x.shape), x.stride(), x.dtype, x.device
        return Packed((), lambda: torch.empty_strided(shape, stride, dtype=dtype, device=device))

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """Nothing."""
        return ()

    def __str__(self) -> str:
        return "shape"


@dataclass(frozen=True)
class Recompute(Codec):
    """Nothing: the tensor is made again from what the cheap operations before it saved.

    BatchNorm, activations and scalings by a parameter are run again, BatchNorm from the batch and without touching
    its running statistics. A tensor that no such operation made is kept.
    """

    lossless: ClassVar[bool] = True

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep a reference: without the operations that made `x` there is nothing to make it from."""
        return Keep().pack(x)

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """Nothing, where it can be recomputed."""
        return ()

    def __str__(self) -> str:
        return "recompute"


@dataclass(frozen=True)
class Cast(Codec):
    """Values rounded to a smaller floating-point type.

    Args:
        dtype: bfloat16, float16 or float8_e4m3fn.
    """

    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        if self.dtype not in _FLOATS:
            raise ConfigError(f"dtype={self.dtype} of a cast: choose {', '.join(map(str, _FLOATS))}")

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep the rounded values; what the type cannot hold becomes its largest value."""
        kept, most = x.dtype, torch.finfo(self.dtype).max
        small = x.detach() if self.dtype is torch.bfloat16 else x.detach().clamp(-most, most)
        return Packed((small.to(self.dtype),), lambda t: t.to(kept))

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """The same shape in the smaller type."""
        return ((shape, self.dtype),)

    def __str__(self) -> str:
        return _FLOATS[self.dtype]
