"""Average pooling of what the backward pass reads."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from netfit.errors import ConfigError

from ._base import Codec, Packed, Spec
from ._exact import Keep

__all__ = ["Pool"]


@dataclass(frozen=True)
class Pool(Codec):
    """Means over `kernel` x `kernel` pixels of maps, or `kernel` neighbouring rows of tokens; spread out again.

    Maps or token lists smaller than the kernel are kept. "Less Memory Means smaller GPUs: Backpropagation with
    Compressed Activations", 2024.

    Args:
        kernel: pixels or tokens a mean, at least 2.

    >>> Pool(2).pack(torch.ones(8, 3, 32, 32)).unpack().shape
    torch.Size([8, 3, 32, 32])
    """

    inputs_only: ClassVar[bool] = True
    kernel: int = 2

    def __post_init__(self) -> None:
        if self.kernel < 2:
            raise ConfigError(f"kernel={self.kernel} of a pool: choose 2 or more")

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep the means."""
        x, k = x.detach(), self.kernel
        if not self._fits(tuple(x.shape)):
            return Keep().pack(x)
        if x.ndim == 4:
            height, width = x.shape[2:]
            means = F.avg_pool2d(x, k, ceil_mode=True)
            return Packed((means,), lambda m: F.interpolate(m, scale_factor=float(k))[..., :height, :width])
        rows = x.shape[-2]
        means = F.avg_pool1d(x.transpose(-1, -2), k, ceil_mode=True).transpose(-1, -2)
        return Packed((means,), lambda m: m.repeat_interleave(k, -2)[..., :rows, :])

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """The pooled tensor."""
        if not self._fits(shape):
            return ((shape, dtype),)
        small = list(shape)
        for axis in (2, 3) if len(shape) == 4 else (-2,):
            small[axis] = -(-shape[axis] // self.kernel)
        return ((tuple(small), dtype),)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        pooled = shape[2:] if len(shape) == 4 else shape[-2:-1] if len(shape) in (2, 3) else ()
        return bool(pooled) and min(pooled) >= self.kernel

    def __str__(self) -> str:
        return f"pool{self.kernel}"
