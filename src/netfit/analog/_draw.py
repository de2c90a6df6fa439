"""Standard normal numbers in the shape of a tensor: true draws, or slices of one pool.

A pool of 2^22 numbers that every draw enters at a random offset costs a tenth of true draws; training does not tell the
difference. Evaluation uses true draws.
"""

import functools
from typing import Literal

import torch
from torch import Tensor

from netfit.seeding import derive

__all__ = ["Source", "gaussian"]

Source = Literal["exact", "pool"]

POOL = 1 << 22


@functools.cache
def _pool() -> Tensor:
    return torch.randn(POOL, generator=torch.Generator().manual_seed(derive(0, "noise pool")))


def gaussian(like: Tensor, source: Source, generator: torch.Generator | None) -> Tensor:
    """Independent N(0, 1) numbers with the shape, type, device and memory layout of `like`.

    Args:
        like: a floating-point tensor.
        source: ``"pool"`` takes float32 numbers on the CPU from the pool where they fit into it.
        generator: where to draw from; torch's global one when None.
    """
    n = like.numel()
    if source == "pool" and 2 * n <= POOL and like.dtype == torch.float32 and like.device.type == "cpu":
        offset = int(torch.randint(POOL - n, (), generator=generator))
        return _laid_out(_pool()[offset : offset + n], like)
    if generator is None:
        return torch.randn_like(like)
    return _laid_out(torch.randn(n, dtype=like.dtype, device=like.device, generator=generator), like)


def _laid_out(flat: Tensor, like: Tensor) -> Tensor:
    """As a tensor of the same layout: adding two layouts would read one of them out of order."""
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
        n, c, h, w = like.shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)
    return flat.view(like.shape)
