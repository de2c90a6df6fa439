"""Operators that move numbers about: means and variances move alike."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from netfit.bayes._gaussian import Gaussian

from ._elementwise import variance
from ._registry import register_moment_rule

__all__: list[str] = []

aten = torch.ops.aten
_VIEWS = (
    "flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "transpose", "permute", "contiguous", "clone",
    "alias", "slice", "select", "expand", "t", "flip", "narrow", "unflatten",
)  # fmt: skip
_SAME = ("dropout", "dropout_", "feature_dropout", "alpha_dropout", "detach", "detach_", "identity", "to", "_to_copy")


def _moved(target: Any) -> Callable[..., Gaussian]:
    def rule(x: Gaussian, *args: Any, **kwargs: Any) -> Gaussian:
        return Gaussian(target(x.mean, *args, **kwargs), None if x.var is None else target(x.var, *args, **kwargs))

    return rule


for _name in _VIEWS:
    register_moment_rule(getattr(aten, _name))(_moved(getattr(aten, _name)))


@register_moment_rule(*(getattr(aten, name) for name in _SAME if hasattr(aten, name)))
def same(x: Gaussian, *args: Any, **kwargs: Any) -> Gaussian:
    """In evaluation mode nothing happens."""
    return x


@register_moment_rule(aten.cat, aten.concat)
def cat(parts: list[Gaussian | torch.Tensor], dim: int = 0) -> Gaussian:
    """Side by side."""
    values = [p if isinstance(p, Gaussian) else Gaussian(p) for p in parts]
    return Gaussian(torch.cat([p.mean for p in values], dim), torch.cat([variance(p) for p in values], dim))


def _parted(target: Any) -> Callable[..., list[Gaussian]]:
    def rule(x: Gaussian, *args: Any, **kwargs: Any) -> list[Gaussian]:
        means, variances = target(x.mean, *args, **kwargs), target(variance(x), *args, **kwargs)
        return [Gaussian(m, v) for m, v in zip(means, variances, strict=True)]

    return rule


@register_moment_rule(operator.getitem)
def getitem(parts: list[Gaussian], i: int) -> Gaussian:
    """One of several parts."""
    return parts[i]


for _name in ("split", "chunk", "split_with_sizes", "unbind"):
    register_moment_rule(getattr(aten, _name))(_parted(getattr(aten, _name)))


@register_moment_rule(aten.pad, aten.constant_pad_nd)
def pad(x: Gaussian, around: list[int], mode: Any = "constant", value: float | None = None) -> Gaussian:
    """A border of known numbers, or of copies."""
    if isinstance(mode, int | float):  # constant_pad_nd has no mode
        mode, value = "constant", float(mode)
    filler = {"value": value or 0.0} if mode == "constant" else {}
    return Gaussian(F.pad(x.mean, around, mode, **filler), F.pad(variance(x), around, mode))


@register_moment_rule(aten.sym_size)
def sym_size(x: Gaussian, dim: int) -> int:
    """A size is known."""
    return x.mean.shape[dim]
