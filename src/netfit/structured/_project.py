"""The chain nearest to a given matrix, in closed form: singular values of the parts that no two paths share.

Cut a chain in two. A value m between the halves is written by one block of the first and read by one block of the
second; those values that have both blocks in common form a class. Classes own disjoint rectangles of the product (the
rows of one block, the columns of the other), each of which is a product of rank |class|. So the truncated SVD of every
rectangle is the optimal pair of halves, and each block of a half is again a matrix with a shorter chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from netfit.errors import ConfigError, did_you_mean

from ._chain import KSChain, KSPattern
from ._multiply import ks_multiply
from ._refine import refined, root

__all__ = ["Projection", "low_rank_error", "project", "relative_error"]


@dataclass(frozen=True)
class Projection:
    """Factors nearest to a matrix, and how near.

    Attributes:
        factors: values (a, d, b, c) of each pattern of the chain.
        rel_error: Frobenius norm of the difference over that of the matrix; with a covariance, of the differences in
            the outputs of such inputs.
        low_rank_error: the same for the best matrix of low rank with as many values. A structure that is not clearly
            better than that fits the matrix no more than anything of its size does.
        chain: what the factors belong to: the one asked for, or the one of low rank where ``"best"`` was asked for.
    """

    factors: tuple[Tensor, ...]
    rel_error: float
    low_rank_error: float
    chain: KSChain


@torch.no_grad()
def project(
    weight: Tensor, chain: KSChain, *, method: Literal["svd", "best"] = "svd", refine_steps: int = 0,
    input_cov: Tensor | None = None,
) -> Projection:  # fmt: skip
    """Find the chain nearest to a matrix: optimal for two factors, cut after cut for more.

    Papers: Dao et al., "Monarch", 2022 (two square factors of rank 1); Zheng, Riccietti and Gribonval, "Efficient
    Identification of Butterfly Sparse Matrix Factorizations", 2023 (hierarchical); here for any sizes, ranks and
    numbers of blocks.

    Args:
        weight: (out, in), real or complex; it may be smaller than the chain, which is then zero beyond it.
        chain: the structure.
        method: ``"svd"``: the chain; ``"best"``: the matrix of low rank with as many values where that is nearer.
        refine_steps: of L-BFGS on all factors together, from the closed form on: what cut after cut misses, and what a
            covariance asks for. The result is never further away than the closed form.
        input_cov: (in, in), the second moments of the inputs: errors then count as much as inputs bring them out.

    Raises:
        ConfigError: the matrix is larger than the chain or not finite, the factors share paths irregularly, or an
            option makes no sense.

    Example:
        >>> hadamard = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
        >>> found = project(hadamard, KSChain.butterfly(4))
        >>> found.rel_error < 1e-6, round(found.low_rank_error, 2)
        (True, 0.71)
    """
    _check(weight, chain, method, refine_steps, input_cov)
    rows, columns = weight.shape
    whole = weight.new_zeros(chain.out_features, chain.in_features)
    whole[:rows, :columns] = weight
    factors = tuple(f[0].contiguous() for f in _factors(whole[None], chain.patterns))
    inputs = torch.eye(columns, dtype=weight.dtype, device=weight.device) if input_cov is None else root(input_cov)
    if refine_steps:
        factors = refined(factors, weight, inputs.to(weight.dtype), refine_steps)
    near = ks_multiply(inputs.to(weight.dtype), factors, out_features=rows, layout="feature_first")
    wanted = weight if input_cov is None else weight @ inputs.to(weight.dtype)
    error, low = relative_error(wanted, near), low_rank_error(wanted, chain.n_params)
    if method == "best" and low < error:
        return _low_rank(weight, None if input_cov is None else inputs.to(weight.dtype), chain.n_params, low)
    return Projection(factors, error, low, chain)


def _check(weight: Tensor, chain: KSChain, method: str, refine_steps: int, input_cov: Tensor | None) -> None:
    if weight.ndim != 2 or weight.shape[0] > chain.out_features or weight.shape[1] > chain.in_features:
        raise ConfigError(f"a weight {tuple(weight.shape)} does not fit a chain {chain.in_features} -> "
                          f"{chain.out_features}")  # fmt: skip
    if not bool(torch.isfinite(weight).all()):
        raise ConfigError("the weight to project holds NaN or infinity")
    if method not in ("svd", "best"):
        raise ConfigError(f"unknown method {method!r} of a projection; {did_you_mean(method, ('svd', 'best'))}")
    if refine_steps < 0:
        raise ConfigError(f"refine_steps={refine_steps} must not be negative")
    size = (weight.shape[1], weight.shape[1])
    if input_cov is not None and (tuple(input_cov.shape) != size or not bool(torch.isfinite(input_cov).all())):
        raise ConfigError(f"input_cov of shape {tuple(input_cov.shape)}: expected finite values of shape {size}")


def _low_rank(weight: Tensor, inputs: Tensor | None, n_params: int, error: float) -> Projection:
    """The best matrix of low rank with at most so many values."""
    rows, columns = weight.shape
    rank = n_params // (rows + columns)
    u, s, vh = torch.linalg.svd(weight if inputs is None else weight @ inputs, full_matrices=False)
    right = vh[:rank] if inputs is None else vh[:rank] @ torch.linalg.pinv(inputs, hermitian=True)
    scale = s[:rank].sqrt().to(weight.dtype)
    factors = (scale[:, None] * right)[None, None].contiguous(), (u[:, :rank] * scale)[None, None].contiguous()
    return Projection(factors, error, error, KSChain.low_rank(columns, rows, rank))


def relative_error(weight: Tensor, near: Tensor) -> float:
    """Frobenius norm of the difference, as part of that of the weight; 0 for a weight of zeros that is met."""
    size = float(torch.linalg.vector_norm(weight))
    off = float(torch.linalg.vector_norm(weight - near))
    return off / size if size else off


@torch.no_grad()
def low_rank_error(weight: Tensor, n_params: int) -> float:
    """Relative error of the best matrix of low rank with at most `n_params` values.

    >>> round(low_rank_error(torch.diag(torch.tensor([3.0, 4.0])), 4), 2)
    0.6
    """
    rank = n_params // sum(weight.shape)
    values = torch.linalg.svdvals(weight)
    whole = float(torch.linalg.vector_norm(values))
    return float(torch.linalg.vector_norm(values[rank:])) / whole if whole else 0.0


def _factors(w: Tensor, patterns: Sequence[KSPattern]) -> list[Tensor]:
    """Values (z, a, d, b, c) of each pattern for a batch of matrices (z, out, in)."""
    z = len(w)
    if len(patterns) == 1:
        a, d, b, c = patterns[0].shape
        blocks = w.view(z, a, b, d, a, c, d).diagonal(dim1=1, dim2=4).diagonal(dim1=2, dim2=4)
        return [blocks.permute(0, 3, 4, 1, 2)]
    cut = len(patterns) // 2
    chain = KSChain(tuple(patterns))
    halves = chain.part(0, cut), chain.part(cut, len(patterns))
    found: list[Tensor] = []
    for half, run, values in zip(halves, (patterns[:cut], patterns[cut:]), _pair(w, *halves), strict=True):
        a, d, b, c = half.shape
        inner = [KSPattern(p.a // a, p.b, p.c, p.d // d) for p in run]
        for p, f in zip(run, _factors(values.reshape(z * a * d, b, c), inner), strict=True):
            grid = f.reshape(z, a, d, p.a // a, p.d // d, p.b, p.c).permute(0, 1, 3, 4, 2, 5, 6)
            found.append(grid.reshape(z, *p.shape))
    return found


def _pair(w: Tensor, first: KSPattern, second: KSPattern) -> tuple[Tensor, Tensor]:
    """Optimal values (z, a, d, b, c) of two factors for a batch of matrices."""
    z = len(w)
    between = torch.arange(first.out_features, device=w.device)
    writer, row = _block(between, first.a, first.b, first.d)
    reader, column = _block(between, second.a, second.c, second.d)
    order = torch.argsort(reader * (first.a * first.d) + writer, stable=True)
    _, sizes = torch.unique(reader * (first.a * first.d) + writer, return_counts=True)
    rank = int(sizes[0])
    if bool((sizes != rank).any()):
        raise ConfigError(f"factors {first} and {second} share paths irregularly: there is no closed form")
    members = order.view(-1, rank)
    rows = _lines(reader[members[:, 0]], second.b, second.d)
    columns = _lines(writer[members[:, 0]], first.c, first.d)
    u, s, vh = torch.linalg.svd(w[:, rows[:, :, None], columns[:, None, :]], full_matrices=False)
    s, have = s[..., :rank].sqrt().to(w.dtype), min(rank, s.shape[-1])
    k1 = w.new_zeros(z, first.a * first.d, first.b, first.c)
    k2 = w.new_zeros(z, second.a * second.d, second.c, second.b)
    chosen = members[:, :have]
    k1[:, writer[chosen], row[chosen]] = s[..., None] * vh[..., :have, :]
    k2[:, reader[chosen], column[chosen]] = (u[..., :have] * s[..., None, :]).mT
    return k1.view(z, *first.shape), k2.mT.reshape(z, *second.shape)


def _block(between: Tensor, a: int, size: int, d: int) -> tuple[Tensor, Tensor]:
    """Block that a value belongs to, and its place there, for a grid (a, size, d)."""
    return between // (size * d) * d + between % d, between // d % size


def _lines(blocks: Tensor, size: int, d: int) -> Tensor:
    """Rows (or columns) of the matrix that belong to each block: (blocks, size)."""
    start = blocks // d * (size * d) + blocks % d
    return start[:, None] + d * torch.arange(size, device=blocks.device)
