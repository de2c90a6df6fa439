"""k bits per value with a range per group."""

from dataclasses import dataclass

import torch
from torch import Tensor

from netfit.errors import ConfigError, JobError
from netfit.kernels import pack_groups, unpack_groups

from ._base import Codec, Packed, Spec, flattened

__all__ = ["KBit"]


@dataclass(frozen=True)
class KBit(Codec):
    """k-bit codes with a minimum and a step per group, unbiased by stochastic rounding.

    A group with a NaN or infinity is kept exactly; under ``torch.autograd.detect_anomaly`` it is an error. "ActNN:
    Reducing Training Memory Footprint via 2-Bit Activation Compressed Training", 2021.

    Args:
        bits: 1, 2, 4 or 8.
        group_size: neighbouring values that share a range, a multiple of 8.

    >>> x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    >>> packed = KBit(4).pack(x)
    >>> packed.nbytes / x.nbytes, bool((packed.unpack() - x).abs().max() < 0.6)
    (0.1328125, True)
    """

    bits: int = 4
    group_size: int = 256

    def __post_init__(self) -> None:
        if self.bits not in (1, 2, 4, 8):
            raise ConfigError(f"bits={self.bits} of a saved activation: choose 1, 2, 4 or 8")
        if self.group_size < 8 or self.group_size % 8:
            raise ConfigError(f"group_size={self.group_size}: choose a multiple of 8")

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep codes, minima and steps."""
        flat, restore = flattened(x.detach())
        codes, lo, scale = pack_groups(flat, self.bits, self.group_size, seed)
        n, bits, size = flat.numel(), self.bits, self.group_size
        broken = scale.isnan()
        if not broken.any():
            return Packed((codes, lo, scale), lambda c, a, s: restore(unpack_groups(c, a, s, bits, size, n)))
        if torch.is_anomaly_enabled():
            raise JobError(f"a saved activation of shape {tuple(x.shape)} holds NaN or infinity")
        at = broken.nonzero().flatten()
        exact = torch.nn.functional.pad(flat, (0, -n % size)).view(-1, size)[at]

        def rebuild(codes: Tensor, lo: Tensor, scale: Tensor, at: Tensor, exact: Tensor) -> Tensor:
            values = torch.nn.functional.pad(unpack_groups(codes, lo, scale, bits, size, n), (0, -n % size))
            values.view(-1, size)[at] = exact.float()
            return restore(values[:n])

        return Packed((codes, lo, scale, at, exact), rebuild)

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """Codes, minima, steps."""
        n = torch.Size(shape).numel()
        side = ((-(-n // self.group_size),), torch.float32)
        return ((-(-n * self.bits // 8),), torch.uint8), side, side

    def __str__(self) -> str:
        return f"q{self.bits}" + ("" if self.group_size == 256 else f"g{self.group_size}")
