"""`PixelflyLinear`: dense blocks at the places a flat butterfly names, plus a low-rank part."""

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.errors import ConfigError

from ._auto import FasterDense, state_of
from ._multiply import eager, ks_multiply

__all__ = ["PixelflyLinear", "block_columns"]

_ROUNDS = 8  # alternations between the two parts of a projection; the error moves by less than 1e-3 after five


class PixelflyLinear(nn.Module):
    """A linear layer whose weight is block sparse plus low rank.

    Block row i holds the block columns i and i XOR 2^t: the first-order sum of a block butterfly. For rectangular
    weights that square pattern is stretched.

    Paper: Chen, Dao et al., "Pixelated Butterfly: Simple and Efficient Sparse Training for Neural Network Models",
    2022.

    Args:
        in_features: size of the input; a last block may be partly empty.
        out_features: size of the output; likewise.
        block_size: rows and columns of a block.
        n_factors: steps of the butterfly; all by default.
        rank: of the low-rank part; 0 for none.
        bias: whether to add one.
        device, dtype: of the parameters.
        generator: draws the initial values; torch's global one by default.

    Raises:
        ConfigError: a size makes no sense.
    """

    def __init__(
        self, in_features: int, out_features: int, block_size: int = 32, n_factors: int | None = None, rank: int = 32,
        bias: bool = True, *, device: Any = None, dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if min(in_features, out_features, block_size) < 1 or rank < 0:
            raise ConfigError(f"{in_features} -> {out_features} in blocks of {block_size}, rank {rank}: no such layer")
        self.in_features, self.out_features, self.block_size, self.rank = in_features, out_features, block_size, rank
        columns = block_columns(-(-out_features // block_size), -(-in_features // block_size), n_factors)
        self.register_buffer("columns", columns, persistent=False)
        self.columns: Tensor
        self._width = (int(columns.max()) + 1) * block_size
        shape = columns.shape[0], 1, block_size, columns.shape[1] * block_size
        settings = {"device": device, "dtype": dtype}
        self.blocks = nn.Parameter(torch.empty(shape, **settings))
        self.down = nn.Parameter(torch.empty(1, 1, rank, in_features, **settings)) if rank else None
        self.up = nn.Parameter(torch.empty(1, 1, out_features, rank, **settings)) if rank else None
        self.bias = nn.Parameter(torch.empty(out_features, **settings)) if bias else None
        size = in_features * out_features
        self._dense = FasterDense(size / self.weight_params, size * self.blocks.element_size(), in_features)
        self.reset_parameters(generator)

    @property
    def weight_params(self) -> int:
        """Learned values of the matrix, the bias not counted."""
        return self.blocks.numel() + self.rank * (self.in_features + self.out_features)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new values: the sum of both parts has the variance of `nn.Linear`'s own start."""
        share = 0.5 if self.rank else 1.0
        bound = math.sqrt(share / self.blocks.shape[3])
        self.blocks.uniform_(-bound, bound, generator=generator)
        if self.down is not None and self.up is not None:
            for p in (self.down, self.up):
                bound = (share / 3) ** 0.25 * math.sqrt(3 / p.shape[3])
                p.uniform_(-bound, bound, generator=generator)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            self.bias.uniform_(-bound, bound, generator=generator)

    @classmethod
    def from_linear(cls, linear: nn.Linear, **settings: Any) -> Self:
        """The nearest such layer to a trained one: blocks and low-rank part are fitted in turns."""
        out_features, in_features = linear.weight.shape
        new = cls(
            in_features, out_features, bias=linear.bias is not None, device=linear.weight.device,
            dtype=linear.weight.dtype, generator=torch.Generator().manual_seed(0), **settings,
        )  # fmt: skip
        with torch.no_grad():
            new._fit(linear.weight.detach())
            if new.bias is not None:
                new.bias.copy_(linear.bias)
        return new.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features); inference takes the whole weight where that is faster."""
        whole = self._dense.quick(x, self._parameters.values())
        if whole is not None:
            return F.linear(x, whole, self.bias)
        if x.shape[-1] != self.in_features:
            raise ConfigError(f"expected (..., {self.in_features}), found an input of shape {tuple(x.shape)}")
        if torch.is_grad_enabled() or torch.compiler.is_exporting() or not eager(x):
            return self._run(x)
        state = state_of(self._parameters.values())
        return self._dense.run(x, state, self._run, lambda x, w: F.linear(x, w, self.bias), self.to_dense)

    def to_dense(self) -> Tensor:
        """The weight (out_features, in_features) that a dense layer would need."""
        b, (rows, wide) = self.block_size, self.columns.shape
        grid = self.blocks.new_zeros(rows, self._width // b, b, b)
        values = self.blocks.reshape(rows, b, wide, b).transpose(1, 2)
        grid = grid.index_put((self._rows(), self.columns), values)
        dense = grid.transpose(1, 2).reshape(rows * b, -1)[: self.out_features, : self.in_features]
        return dense if self.down is None or self.up is None else dense + self.up[0, 0] @ self.down[0, 0]

    def extra_repr(self) -> str:
        """Sizes, structure and how much smaller it is than dense."""
        part = self.weight_params / (self.in_features * self.out_features)
        blocks = f"{self.columns.shape[1]} blocks of {self.block_size} a row, rank {self.rank}"
        return f"{self.in_features} -> {self.out_features}, {blocks}, {part:.1%} of dense"

    def _run(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        flat = F.pad(flat, (0, self._width - self.in_features)) if self._width > self.in_features else flat
        gathered = flat.reshape(-1, self._width // self.block_size, self.block_size)[:, self.columns.flatten()].flatten(
            1
        )
        y = ks_multiply(gathered, [self.blocks], self.bias, out_features=self.out_features)
        if self.down is not None and self.up is not None:
            y = y + ks_multiply(flat[:, : self.in_features], [self.down, self.up])
        return y.reshape(*x.shape[:-1], self.out_features)

    def _rows(self) -> Tensor:
        return torch.arange(len(self.columns), device=self.columns.device)[:, None].expand(self.columns.shape)

    def _fit(self, weight: Tensor) -> None:
        b, rows = self.block_size, len(self.columns)
        for _ in range(_ROUNDS):
            low = 0 if self.down is None or self.up is None else self.up[0, 0] @ self.down[0, 0]
            rest = F.pad(weight - low, (0, self._width - self.in_features, 0, rows * b - self.out_features))
            grid = rest.reshape(rows, b, -1, b).transpose(1, 2)[self._rows(), self.columns]
            self.blocks.copy_(grid.transpose(1, 2).reshape(self.blocks.shape))
            if self.down is None or self.up is None:
                return
            u, s, vh = torch.linalg.svd(weight - (self.to_dense() - low), full_matrices=False)
            root = s[: self.rank].sqrt()
            self.up.zero_()[0, 0, :, : len(root)] = u[:, : self.rank] * root
            self.down.zero_()[0, 0, : len(root)] = root[:, None] * vh[: self.rank]


def block_columns(rows: int, columns: int, n_factors: int | None = None) -> Tensor:
    """Block columns that each block row holds: int64 of shape (rows, blocks a row).

    Args:
        rows: block rows of the weight.
        columns: its block columns; the result may name some beyond them, which are empty.
        n_factors: steps of the butterfly.

    Raises:
        ConfigError: fewer than no steps, or more than the butterfly has.

    >>> block_columns(4, 4).tolist()
    [[0, 1, 2], [1, 0, 3], [2, 3, 0], [3, 2, 1]]
    """
    sizes = [1 << t for t in range(min(rows, columns).bit_length())]
    size = max(m for m in sizes if -(-columns // m) * m <= 1.25 * columns)
    most = size.bit_length() - 1
    steps = most if n_factors is None else n_factors
    if not 0 <= steps <= most:
        raise ConfigError(f"n_factors={n_factors}: {rows} x {columns} blocks allow 0 to {most}")
    square = torch.arange(rows) * size // rows
    near = torch.stack([square, *(square ^ (1 << t) for t in range(steps))], 1)
    each = -(-columns // size)
    return (near[:, :, None] * each + torch.arange(each)).flatten(1)
