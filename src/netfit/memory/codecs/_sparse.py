"""The largest blocks of a matrix, and the weight gradient that multiplies only those."""

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels import blocks

from ._base import Codec, Packed, Spec

__all__ = ["BlockSparse", "weight_gradient"]


@dataclass(frozen=True)
class BlockSparse(Codec):
    """The blocks of largest norm over the whole matrix (rows, features); the others count as zero.

    "Compressing the Backward Pass of Large-Scale Neural Architectures by Structured Activation Pruning", 2023.

    Args:
        block: rows and columns of a block.
        density: part of the blocks that is kept, in (0, 1].
        norm: ``"l1"`` or ``"l2"``.
    """

    inputs_only: ClassVar[bool] = True
    block: int = 8
    density: float = 0.25
    norm: Literal["l1", "l2"] = "l1"

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ConfigError(f"density={self.density} of kept blocks: choose more than 0, at most 1")
        if self.block < 1 or self.norm not in ("l1", "l2"):
            raise ConfigError(f"block={self.block}, norm={self.norm!r}: choose a positive size and 'l1' or 'l2'")

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep blocks (kept, block, block) and their places, int32 (kept,), in the order of columns."""
        x, b = x.detach(), self.block
        shape, (high, wide) = x.shape, self._grid(tuple(x.shape))
        matrix = x.reshape(-1, shape[-1])
        padded = F.pad(matrix, (0, wide * b - matrix.shape[1], 0, high * b - matrix.shape[0]))
        blocks = padded.view(high, b, wide, b)
        size = (blocks.abs() if self.norm == "l1" else blocks.square()).sum((1, 3))
        # Sorted by column of blocks: the order in which the weight gradient reads them.
        at = size.T.flatten().topk(self._kept(high * wide), sorted=False).indices.sort().values
        values = blocks[at % high, :, at // high, :]
        rows, cols = matrix.shape

        def rebuild(values: Tensor, at: Tensor) -> Tensor:
            out = values.new_zeros(high, b, wide, b)
            at = at.long()
            out[at % high, :, at // high, :] = values
            return out.view(high * b, wide * b)[:rows, :cols].reshape(shape)

        return Packed((values, at.int()), rebuild)

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """Blocks and places."""
        high, wide = self._grid(shape)
        kept = self._kept(high * wide)
        return ((kept, self.block, self.block), dtype), ((kept,), torch.int32)

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        rows = torch.Size(shape[:-1]).numel()
        return -(-rows // self.block), -(-shape[-1] // self.block)

    def _kept(self, blocks: int) -> int:
        return max(1, round(self.density * blocks))

    def __str__(self) -> str:
        percent = f"{100 * self.density:g}"
        block = "" if self.block == 8 else f"b{self.block}"
        return f"bsr{percent}{block}" + ("" if self.norm == "l1" else "l2")


def weight_gradient(gradient: Tensor, values: Tensor, at: Tensor, features: int) -> Tensor:
    """Gradient of a linear weight from the kept blocks of its input; a Triton kernel on a GPU that has Triton.

    Args:
        gradient: of the output, (rows, outputs).
        values: blocks of the input, from `BlockSparse`.
        at: their places.
        features: columns of the input.

    Returns:
        (outputs, features).
    """
    b = values.shape[1]
    high, wide = -(-gradient.shape[0] // b), -(-features // b)
    column = torch.div(at, high, rounding_mode="floor")
    starts = torch.searchsorted(column, torch.arange(wide + 1, dtype=column.dtype, device=at.device)).int()
    if blocks.ready(values, b):
        return blocks.weight_gradient(gradient, values, at, starts, features)
    padded = F.pad(gradient, (0, 0, 0, high * b - gradient.shape[0]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (BSR|CSR) tensor support is in beta")
        transposed = torch.sparse_bsr_tensor(
            starts, at % high, values.transpose(1, 2).contiguous(), (wide * b, high * b), check_invariants=False
        )
        return (transposed @ padded)[:features].T
