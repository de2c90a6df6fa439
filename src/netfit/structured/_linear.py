"""`KSLinear`: a drop-in for `nn.Linear` whose matrix is a chain, and the constructors of the literature's layers."""

import math
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean

from ._auto import FasterDense, state_of
from ._chain import KSChain, KSPattern, power_of_two
from ._multiply import Ready, eager, fused, ks_multiply
from ._project import project

__all__ = ["ButterflyLinear", "KSLinear", "LowRankLinear", "MonarchLinear"]

Parametrization = Literal["free", "tied", "rotation"]
Execute = Literal["auto", "fused", "factors", "dense"]


class KSLinear(nn.Module):
    """A linear layer whose weight is a product of Kronecker-sparse factors.

    Args:
        in_features: size of the input; at most what the chain reads.
        out_features: size of the output; at most what the chain writes. The surplus of either is cropped.
        chain: the structure.
        bias: whether to add one.
        parametrization: ``"free"``: all values are learned; ``"tied"``: the blocks of one step share theirs;
            ``"rotation"``: every 2 x 2 block is a rotation by a learned angle.
        execute: ``"fused"``: runs of factors are multiplied out first, which is how a chain is fast; ``"factors"``:
            one after another; ``"dense"``: the whole matrix is; ``"auto"``: fused, but dense where that was measured
            to be faster on this machine, for inference on batches of this size.
        device, dtype: of the parameters.
        generator: draws the initial values; torch's global one by default.

    Inference outside autograd multiplies out once and keeps the result until a parameter changes.

    Raises:
        ConfigError: a word is unknown, sizes do not fit, or rotations are asked of blocks that are not 2 x 2.

    Example:
        >>> layer = KSLinear(300, 700, KSChain.monarch(300, 700))
        >>> layer(torch.ones(2, 300)).shape, layer.weight_params / (300 * 700) < 0.1
        (torch.Size([2, 700]), True)
    """

    def __init__(
        self, in_features: int, out_features: int, chain: KSChain, bias: bool = True, *,
        parametrization: Parametrization = "free", execute: Execute = "auto", device: Any = None,
        dtype: torch.dtype | None = None, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        _known("parametrization", parametrization, get_args(Parametrization))
        _known("execute", execute, get_args(Execute))
        if not (1 <= in_features <= chain.in_features and 1 <= out_features <= chain.out_features):
            raise ConfigError(
                f"a layer {in_features} -> {out_features} does not fit a chain "
                f"{chain.in_features} -> {chain.out_features}"
            )
        if parametrization == "rotation" and any((p.b, p.c) != (2, 2) for p in chain.patterns):
            raise ConfigError(f"rotations need blocks of 2x2, the chain has {chain}")
        self.in_features, self.out_features, self.chain = in_features, out_features, chain
        self.parametrization, self.execute = parametrization, execute
        empty = (torch.empty(_stored(p, parametrization), device=device, dtype=dtype) for p in chain.patterns)
        self.factors = nn.ParameterList([nn.Parameter(t) for t in empty])
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self._kept: tuple[Any, Ready | None] = (None, None)
        size = in_features * out_features
        self._dense = FasterDense(size / chain.fuse().n_params, size * self.factors[0].element_size(), in_features)
        self.reset_parameters(generator)

    @property
    def weight_params(self) -> int:
        """Learned values of the matrix, the bias not counted."""
        return sum(p.numel() for p in self.factors)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new values so that the *product* has the variance of `nn.Linear`'s own start.

        Blocks of 2 x 2 start as random rotations, of which a product of any length keeps the length of a vector.
        """
        gain = (1 / 3) ** (1 / (2 * len(self.factors)))
        for p, pattern in zip(self.factors, self.chain.patterns, strict=True):
            if self.parametrization == "rotation":
                p.uniform_(-math.pi, math.pi, generator=generator)
            elif pattern.b == pattern.c == 2:
                angle = torch.empty(p.shape[:2], dtype=p.dtype, device=p.device)
                p.copy_(gain * _rotations(angle.uniform_(-math.pi, math.pi, generator=generator)))
            else:
                bound = gain * math.sqrt(3 / pattern.c)
                p.uniform_(-bound, bound, generator=generator)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            self.bias.uniform_(-bound, bound, generator=generator)

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, chain: KSChain, *, refine_steps: int = 0, input_cov: Tensor | None = None,
        **settings: Any,
    ) -> Self:  # fmt: skip
        """The layer of that structure nearest to a trained one (see `project`), with its bias.

        Args:
            linear: weight (out, in).
            chain: the structure.
            refine_steps: of the projection.
            input_cov: second moments of the layer's inputs, (in, in).
            **settings: of the layer, such as ``execute``; its parametrization is ``"free"``.
        """
        out_features, in_features = linear.weight.shape
        new = cls(
            in_features, out_features, chain, linear.bias is not None,
            device=linear.weight.device, dtype=linear.weight.dtype, generator=_any_seed(), **settings,
        )  # fmt: skip
        with torch.no_grad():
            found = project(linear.weight.detach(), chain, refine_steps=refine_steps, input_cov=input_cov)
            for p, value in zip(new.factors, found.factors, strict=True):
                p.copy_(value)
            if new.bias is not None:
                new.bias.copy_(linear.bias)
        return new.train(linear.training)

    def values(self) -> list[Tensor]:
        """The factors (a, d, b, c) behind the parameters."""
        # Ten times faster than to iterate over the list, which is much for a small layer.
        parameters = [p for p in self.factors._parameters.values() if p is not None]
        if self.parametrization == "rotation":
            return [_rotations(p) for p in parameters]
        if self.parametrization == "tied":
            return [p.expand(q.shape) for p, q in zip(parameters, self.chain.patterns, strict=True)]
        return [*parameters]

    def to_dense(self) -> Tensor:
        """The weight (out_features, in_features) that a dense layer would need."""
        return _matrix(self.values(), self.in_features, self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        weight = self._dense.quick(x, self._modules["factors"]._parameters.values())  # type: ignore[union-attr]
        if weight is not None:
            return F.linear(x, weight, self._parameters.get("bias"))
        if x.shape[-1] != self.in_features:
            raise ConfigError(f"expected (..., {self.in_features}), found an input of shape {tuple(x.shape)}")
        if torch.is_grad_enabled() or not eager(x):
            return self._recorded(x)
        run = self._ready()
        if self.execute == "dense":
            return F.linear(x, run.factors[0][0, 0], self.bias)
        if self.execute != "auto":
            return run(x, self.bias)
        return self._dense.run(
            x, self._kept[0], lambda x: run(x, self.bias), lambda x, w: F.linear(x, w, self.bias), self.to_dense
        )

    def train(self, mode: bool = True) -> Self:
        """As of every module; what was multiplied out is renewed, so that an export in evaluation mode finds it."""
        super().train(mode)
        if not mode and not self.factors[0].is_meta:
            with torch.no_grad():
                self._ready()
        return self

    def extra_repr(self) -> str:
        """Sizes, structure and how much smaller it is than dense."""
        part = self.weight_params / (self.in_features * self.out_features)
        tied = "" if self.parametrization == "free" else f", {self.parametrization}"
        return f"{self.in_features} -> {self.out_features}, {self.chain}{tied}, {part:.1%} of dense"

    def _executed(self) -> list[Tensor]:
        if self.execute == "dense":
            return [self.to_dense()[None, None]]
        return fused(self.values(), self.chain) if self.execute != "factors" else self.values()

    def _executed_patterns(self) -> tuple[KSPattern, ...]:
        return (
            () if self.execute == "dense" else (self.chain if self.execute == "factors" else self.chain.fuse()).patterns
        )

    def _recorded(self, x: Tensor) -> Tensor:
        """For gradients and graphs. Parameters are stand-ins without values in an export: what is derived from them was
        made by `eval`."""
        kept, derived = (
            self._kept[1],
            self.parametrization != "free" or self._executed_patterns() != self.chain.patterns,
        )
        weights = kept.factors if kept and derived and torch.compiler.is_exporting() else self._executed()
        if self.execute == "dense":
            return F.linear(x, weights[0][0, 0], self.bias)
        return ks_multiply(x, weights, self.bias, out_features=self.out_features)

    def _ready(self) -> Ready:
        state = state_of(self.factors._parameters.values())
        run = self._kept[1]
        if run is None or self._kept[0] != state:
            run = Ready(self._executed(), self.out_features)
            self._kept = state, run
        return run


def ButterflyLinear(in_features: int, out_features: int, nblocks: int = 1, **settings: Any) -> KSLinear:  # noqa: N802
    """A butterfly on the next power of two of the larger size.

    Paper: Dao et al., "Learning Fast Algorithms for Linear Transforms Using Butterfly Factorizations", 2019.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        nblocks: butterflies, back and forth.
        **settings: of `KSLinear`, such as ``parametrization="tied"``.
    """
    chain = KSChain.butterfly(power_of_two(max(in_features, out_features, 2)), nblocks)
    return KSLinear(in_features, out_features, chain, **settings)


def MonarchLinear(  # noqa: N802
    in_features: int, out_features: int, nblocks: int | None = None, rank: int | None = None, **settings: Any
) -> KSLinear:
    """Two block-diagonal factors (see `KSChain.monarch`).

    Args:
        in_features: size of the input.
        out_features: size of the output.
        nblocks: blocks of a factor.
        rank: of what an input block and an output block share.
        **settings: of `KSLinear`.
    """
    return KSLinear(in_features, out_features, KSChain.monarch(in_features, out_features, nblocks, rank), **settings)


def LowRankLinear(in_features: int, out_features: int, rank: int, **settings: Any) -> KSLinear:  # noqa: N802
    """Two thin matrices.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        rank: size between them.
        **settings: of `KSLinear`.
    """
    return KSLinear(in_features, out_features, KSChain.low_rank(in_features, out_features, rank), **settings)


def _stored(pattern: KSPattern, parametrization: Parametrization) -> tuple[int, ...]:
    if parametrization == "rotation":
        return pattern.a, pattern.d
    return (1, *pattern.shape[1:]) if parametrization == "tied" else pattern.shape


def _rotations(angles: Tensor) -> Tensor:
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos, -sin, sin, cos], -1).reshape(*angles.shape, 2, 2)


def _matrix(factors: list[Tensor], in_features: int, out_features: int) -> Tensor:
    one = torch.eye(in_features, dtype=factors[0].dtype, device=factors[0].device)
    return ks_multiply(one, factors, out_features=out_features, layout="feature_first")


def _any_seed() -> torch.Generator:
    """For values that are replaced at once: torch's global generator stays where it is."""
    return torch.Generator().manual_seed(0)


def _known(option: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise ConfigError(f"unknown {option} {word!r}; {did_you_mean(word, known)}")
