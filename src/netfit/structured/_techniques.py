"""The policy's words for structured layers: `Butterfly`, `Monarch`, `Pixelfly`, `LowRank`."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import nn

from netfit.errors import ConfigError, UnsupportedLayerError, did_you_mean
from netfit.surgery import Site, Stage, Technique

from ._chain import KSChain, power_of_two
from ._conv import MonarchConv2d
from ._linear import ButterflyLinear, KSLinear
from ._pixelfly import PixelflyLinear

__all__ = ["Butterfly", "LowRank", "Monarch", "Pixelfly", "Structure"]


@dataclass(frozen=True)
class Structure(Technique):
    """Base of the techniques that put a structured layer in the place of a dense one.

    The trained weight is projected onto the structure; where that has no closed form, values are drawn with `seed`.
    """

    stage: ClassVar[Stage] = Stage.STRUCTURE
    mechanism: ClassVar[Literal["swap"]] = "swap"

    @abstractmethod
    def layer(self, old: nn.Module) -> nn.Module:
        """The layer that replaces one.

        Args:
            old: a linear layer or a convolution.

        Raises:
            UnsupportedLayerError: it has no such form.
        """

    @classmethod
    def rewrite(
        cls, model: nn.Module, chosen: Mapping[Site, Self], example_inputs: tuple[torch.Tensor, ...]
    ) -> nn.Module:
        """Replace every chosen layer; see `Technique.swap_layers`."""
        return cls.swap_layers(model, chosen, cls._checked)

    def _checked(self, old: nn.Module) -> nn.Module:
        if type(old) not in (nn.Linear, nn.Conv2d):
            raise UnsupportedLayerError(f"{self.name} replaces nn.Linear and nn.Conv2d, not a {type(old).__name__}")
        return self.layer(old)


@dataclass(frozen=True)
class Butterfly(Structure):
    """A butterfly matrix: 2 n log2(n) values on the next power of two n of the larger size.

    Args:
        parametrization: ``"free"``, or ``"tied"`` (4 n values) or ``"rotation"`` (n/2 log2(n) angles), which start
            from random values.
        seed: of those.

    >>> Butterfly(parametrization="tied")
    Butterfly(parametrization='tied', seed=0)
    """

    name: ClassVar[str] = "butterfly"
    kinds: ClassVar[frozenset[str] | None] = frozenset({"linear"})

    parametrization: Literal["free", "tied", "rotation"] = "free"
    seed: int = 0

    def __post_init__(self) -> None:
        known = ("free", "tied", "rotation")
        if self.parametrization not in known:
            raise ConfigError(
                f"unknown parametrization {self.parametrization!r}; {did_you_mean(self.parametrization, known)}"
            )

    def layer(self, old: nn.Module) -> nn.Module:
        """A butterfly in the place of a linear layer."""
        linear = _linear(old)
        if self.parametrization == "free":
            chain = KSChain.butterfly(power_of_two(max(linear.in_features, linear.out_features, 2)))
            return KSLinear.from_linear(linear, chain)
        new = ButterflyLinear(
            linear.in_features, linear.out_features, bias=linear.bias is not None,
            parametrization=self.parametrization, device=linear.weight.device, dtype=linear.weight.dtype,
            generator=torch.Generator(linear.weight.device).manual_seed(self.seed),
        )  # fmt: skip
        if new.bias is not None:
            new.bias.data.copy_(linear.bias.data)
        return new.train(linear.training)


@dataclass(frozen=True)
class Monarch(Structure):
    """A Monarch matrix; in a convolution, of its channels.

    Args:
        nblocks: blocks of either factor; near the square root of the smaller size by default. A convolution needs a
            common divisor of its channels.
        rank: of what an input block and an output block share.
    """

    name: ClassVar[str] = "monarch"
    kinds: ClassVar[frozenset[str] | None] = frozenset({"linear", "conv2d"})

    nblocks: int | None = None
    rank: int | None = None

    def __post_init__(self) -> None:
        for name in ("nblocks", "rank"):
            _at_least_one(name, getattr(self, name))

    def layer(self, old: nn.Module) -> nn.Module:
        """A Monarch layer in the place of a linear layer or a convolution."""
        if isinstance(old, nn.Conv2d):
            return MonarchConv2d.from_conv(old, self.nblocks, self.rank)
        linear = _linear(old)
        chain = KSChain.monarch(linear.in_features, linear.out_features, self.nblocks, self.rank)
        return KSLinear.from_linear(linear, chain)


@dataclass(frozen=True)
class Pixelfly(Structure):
    """Blocks at the places of a flat butterfly plus a low-rank part.

    Args:
        block_size: rows and columns of a block.
        n_factors: steps of the butterfly; all by default.
        rank: of the low-rank part.
    """

    name: ClassVar[str] = "pixelfly"
    kinds: ClassVar[frozenset[str] | None] = frozenset({"linear"})

    block_size: int = 32
    n_factors: int | None = None
    rank: int = 32

    def __post_init__(self) -> None:
        _at_least_one("block_size", self.block_size)
        if self.rank < 0:
            raise ConfigError(f"rank={self.rank} of pixelfly must not be negative")

    def layer(self, old: nn.Module) -> nn.Module:
        """A pixelated butterfly in the place of a linear layer."""
        return PixelflyLinear.from_linear(
            _linear(old), block_size=self.block_size, n_factors=self.n_factors, rank=self.rank
        )


@dataclass(frozen=True)
class LowRank(Structure):
    """Two thin matrices; in a convolution, one to few channels and one of 1 x 1.

    Args:
        rank: size between them; by default as many values as `Monarch()` has there, at least 1.
    """

    name: ClassVar[str] = "low_rank"
    kinds: ClassVar[frozenset[str] | None] = frozenset({"linear", "conv2d"})

    rank: int | None = None

    def __post_init__(self) -> None:
        _at_least_one("rank", self.rank)

    def layer(self, old: nn.Module) -> nn.Module:
        """A low-rank layer in the place of a linear layer or a convolution."""
        if isinstance(old, nn.Conv2d):
            return self._conv(old)
        linear = _linear(old)
        chain = KSChain.low_rank(linear.in_features, linear.out_features, self._rank(linear.weight))
        return KSLinear.from_linear(linear, chain)

    def _rank(self, weight: torch.Tensor) -> int:
        rows, columns = weight.shape[0], weight[0].numel()
        rank = self.rank or max(1, KSChain.monarch(columns, rows).n_params // (rows + columns))
        return min(rank, rows, columns)

    def _conv(self, old: nn.Conv2d) -> nn.Module:
        if old.groups != 1:
            raise UnsupportedLayerError(f"a convolution with groups={old.groups} is not split into thin ones")
        weight = old.weight.detach()
        rank = self._rank(weight)
        thin = copy.deepcopy(old)
        thin.out_channels, thin.bias = rank, None
        thin.weight = nn.Parameter(weight.new_empty(rank, *weight.shape[1:]))
        wide = nn.Conv2d(rank, old.out_channels, 1, bias=old.bias is not None, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            u, s, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            root = s[:rank].sqrt()
            thin.weight.copy_((root[:, None] * vh[:rank]).reshape(thin.weight.shape))
            wide.weight.copy_((u[:, :rank] * root)[:, :, None, None])
            if old.bias is not None and wide.bias is not None:
                wide.bias.copy_(old.bias)
        return nn.Sequential(thin, wide).train(old.training)


def _linear(old: nn.Module) -> nn.Linear:
    if not isinstance(old, nn.Linear):
        raise UnsupportedLayerError(f"only nn.Linear has this form, not {type(old).__name__}")
    return old


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"{name}={value} must be at least 1")
