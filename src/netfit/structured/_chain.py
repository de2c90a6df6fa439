"""What a structured matrix is made of: Kronecker-sparse factors, one after another.

A factor of pattern (a, b, c, d) is block diagonal up to a permutation: it maps x viewed (a, c, d) to y (a, b, d) with
``y[i, j, l] = sum_k K[i, l, j, k] * x[i, k, l]``. Its values are stored as the a*d blocks they are, ``K (a, d, b, c)``:
each block is one small dense matrix. Butterfly, Monarch, block diagonal and low-rank matrices are chains of such
factors, so all of them share one multiply, one backward pass and one projection.
"""

from dataclasses import dataclass
from functools import cached_property
from math import gcd, prod

from netfit.errors import ConfigError

__all__ = ["KSChain", "KSPattern", "power_of_two"]

# Multiply-accumulates that one value read and written between two factors costs: what makes two factors of 32 x 32
# blocks cheaper than ten of 2 x 2. Only the order of magnitude matters.
_TRAFFIC = 16


@dataclass(frozen=True)
class KSPattern:
    """One Kronecker-sparse factor.

    Attributes:
        a: how many parts of the vector are treated apart.
        b: outputs of a block.
        c: inputs of a block.
        d: step between the values that one block mixes.
    """

    a: int
    b: int
    c: int
    d: int

    def __post_init__(self) -> None:
        if min(self.a, self.b, self.c, self.d) < 1:
            raise ConfigError(f"pattern ({self.a}, {self.b}, {self.c}, {self.d}): all four sizes must be at least 1")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the stored values: (a, d, b, c)."""
        return self.a, self.d, self.b, self.c

    @property
    def in_features(self) -> int:
        """Values it reads."""
        return self.a * self.c * self.d

    @property
    def out_features(self) -> int:
        """Values it writes."""
        return self.a * self.b * self.d

    @property
    def n_params(self) -> int:
        """Values it stores, which is also its multiply-accumulates for one sample."""
        return self.a * self.b * self.c * self.d


@dataclass(frozen=True)
class KSChain:
    """A structured matrix: the first pattern is applied first.

    Args:
        patterns: at least one; each must read what the one before writes.

    Raises:
        ConfigError: sizes do not match; the message names the factors.

    Example:
        >>> chain = KSChain.monarch(1024, 1024)
        >>> chain.patterns[0], chain.n_params / 1024**2
        (KSPattern(a=32, b=32, c=32, d=1), 0.0625)
    """

    patterns: tuple[KSPattern, ...]

    def __post_init__(self) -> None:
        if not self.patterns:
            raise ConfigError("a chain needs at least one factor")
        for i, (one, two) in enumerate(zip(self.patterns, self.patterns[1:], strict=False), start=1):
            if one.out_features != two.in_features:
                raise ConfigError(
                    f"factor {i + 1} expects {two.in_features} inputs, factor {i} gives {one.out_features}"
                )

    @property
    def in_features(self) -> int:
        """Length of what it multiplies."""
        return self.patterns[0].in_features

    @property
    def out_features(self) -> int:
        """Length of the product."""
        return self.patterns[-1].out_features

    @property
    def n_params(self) -> int:
        """Stored values."""
        return sum(p.n_params for p in self.patterns)

    @property
    def flops_per_row(self) -> int:
        """Floating-point operations for one sample."""
        return 2 * self.n_params

    @property
    def rank_bound(self) -> int:
        """No product of such factors has a larger rank."""
        return min(self.in_features, *(p.out_features for p in self.patterns))

    @classmethod
    def dense(cls, in_features: int, out_features: int) -> "KSChain":
        """One block: any matrix."""
        return cls((KSPattern(1, out_features, in_features, 1),))

    @classmethod
    def block_diagonal(cls, in_features: int, out_features: int, nblocks: int) -> "KSChain":
        """`nblocks` equal blocks; sizes are rounded up to whole blocks."""
        _positive(in_features=in_features, out_features=out_features, nblocks=nblocks)
        return cls((KSPattern(nblocks, -(-out_features // nblocks), -(-in_features // nblocks), 1),))

    @classmethod
    def low_rank(cls, in_features: int, out_features: int, rank: int) -> "KSChain":
        """The product of an (out, rank) and a (rank, in) matrix."""
        _positive(in_features=in_features, out_features=out_features, rank=rank)
        return cls((KSPattern(1, rank, in_features, 1), KSPattern(1, out_features, rank, 1)))

    @classmethod
    def butterfly(cls, n: int, nblocks: int = 1) -> "KSChain":
        """log2(n) factors of 2 x 2 blocks, steps doubling; further blocks run back and forth (kaleidoscope).

        Paper: Dao et al., "Learning Fast Algorithms for Linear Transforms Using Butterfly Factorizations", 2019.

        Args:
            n: a power of two.
            nblocks: how many times all steps are run through.

        Raises:
            ConfigError: n is no power of two.
        """
        _positive(nblocks=nblocks)
        if n < 2 or n != power_of_two(n):
            raise ConfigError(f"a butterfly needs a power of two, not {n}: the next one is {power_of_two(max(n, 2))}")
        up = [KSPattern(n >> (i + 1), 2, 2, 1 << i) for i in range(n.bit_length() - 1)]
        return cls(tuple(p for block in range(nblocks) for p in (up if block % 2 == 0 else up[::-1])))

    @classmethod
    def monarch(
        cls, in_features: int, out_features: int, nblocks: int | None = None, rank: int | None = None
    ) -> "KSChain":
        """Two block-diagonal factors with a permutation between them.

        Paper: Dao et al., "Monarch: Expressive Structured Matrices for Efficient and Accurate Training", 2022.

        Args:
            in_features: sizes that blocks do not divide are rounded up.
            out_features: likewise.
            nblocks: blocks of either factor; by default near the square root of the smaller size, chosen for each
                side so that little is rounded up.
            rank: of the part of the matrix that an input block and an output block share; by default as large as
                keeps the values between the factors as many as the smaller size.
        """
        _positive(in_features=in_features, out_features=out_features, nblocks=nblocks, rank=rank)
        least = min(in_features, out_features)
        if nblocks is None:
            k, groups = (_blocks(n, least**0.5) for n in (in_features, out_features))
        else:
            k, groups = min(nblocks, in_features), min(nblocks, out_features)
        rank = rank or max(1, -(-least // (k * groups)))
        first = KSPattern(k, rank * groups, -(-in_features // k), 1)
        return cls((first, KSPattern(1, -(-out_features // groups), rank * k, groups)))

    @cached_property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """Runs of factors worth multiplying out once, so that a product takes the fewest steps: (first, end)."""
        best: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ())]
        for end in range(1, len(self.patterns) + 1):
            options = []
            for start in range(end):
                p = self.part(start, end)
                cost = p.n_params + _TRAFFIC * (p.in_features + p.out_features)
                options.append((best[start][0] + cost, (*best[start][1], (start, end))))
            best.append(min(options, key=lambda o: (o[0], len(o[1]))))
        return best[-1][1]

    def fuse(self) -> "KSChain":
        """The chain with each of its `segments` as one factor: what is executed.

        >>> [p.shape for p in KSChain.butterfly(1024).fuse().patterns]
        [(32, 1, 32, 32), (1, 32, 32, 32)]
        """
        return self._fused

    @cached_property
    def _fused(self) -> "KSChain":
        return KSChain(tuple(self.part(*s) for s in self.segments))

    def part(self, start: int, end: int) -> KSPattern:
        """Pattern of the product of the factors from `start` up to `end`: parts and steps that all of them respect."""
        run = self.patterns[start:end]
        a, d = gcd(*(p.a for p in run)), gcd(*(p.d for p in run))
        return KSPattern(a, run[-1].out_features // (a * d), run[0].in_features // (a * d), d)

    def __str__(self) -> str:
        if len(self.patterns) > 3:
            return f"{len(self.patterns)} factors of {self.patterns[0].b}x{self.patterns[0].c} blocks"
        sizes = " -> ".join(f"{prod(p.shape[:2])} of {p.b}x{p.c}" for p in self.patterns)
        return f"{sizes} blocks"


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n.

    >>> [power_of_two(n) for n in (1, 3, 64, 65)]
    [1, 4, 64, 128]
    """
    return 1 << (n - 1).bit_length()


def _blocks(size: int, wanted: float) -> int:
    """A number of blocks within a factor of 1.5 of the wanted one; rounding up to whole blocks costs as little."""
    near = range(max(1, round(wanted / 1.5)), max(1, round(wanted * 1.5)) + 1)
    return min(near, key=lambda k: (-(-size // k) * k - size, abs(k - wanted)))


def _positive(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ConfigError(f"{name}={size} of a structured matrix must be at least 1")
