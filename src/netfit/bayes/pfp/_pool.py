"""Moments of pooling, each with a choice that `calibrate_pfp` makes per place.

Neighbours in a window share weights and are correlated. For a maximum, ``how="select"`` takes the moments of the entry
with the largest mean (right under full correlation), ``how="clark"`` the maximum of independent Gaussians. For an
average, ``rho`` is the correlation: v' = rho (mean std)^2 + (1 - rho) (sum of variances) / n^2.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netfit.bayes._gaussian import Gaussian
from netfit.errors import UnsupportedLayerError

from ._elementwise import max_of_two, variance
from ._registry import register_moment_rule

__all__ = ["average", "sizes_of"]

aten = torch.ops.aten
_LOWEST = -1e30  # padding of a maximum; minus infinity would turn into NaN where a variance multiplies it


def _select(x: Gaussian, y: Gaussian) -> Gaussian:
    first = x.mean >= y.mean
    return Gaussian(torch.where(first, x.mean, y.mean), torch.where(first, variance(x), variance(y)))


def _pool(x: Gaussian, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, how: str, n: int) -> Gaussian:
    """Slices of the window, folded along the last axis, then along the one before."""
    if ceil:
        raise UnsupportedLayerError("max-pooling with ceil_mode=True has no rule: pad the input instead")
    sizes, steps = sizes_of(kernel, n), sizes_of(stride or kernel, n)
    pads, gaps = sizes_of(padding, n), sizes_of(dilation, n)
    parts = [x]
    for axis in range(-1, -n - 1, -1):
        parts = [_along(part, axis, sizes[axis], steps[axis], pads[axis], gaps[axis], how) for part in parts]
    return parts[0]


def _along(x: Gaussian, axis: int, size: int, step: int, pad: int, gap: int, how: str) -> Gaussian:
    mean, var = x.mean, variance(x)
    if pad:
        around = [0, 0] * (-axis - 1) + [pad, pad]
        mean, var = F.pad(mean, around, value=_LOWEST), F.pad(var, around)
    count = (mean.shape[axis] - gap * (size - 1) - 1) // step + 1
    axis += mean.dim()
    best: Gaussian | None = None
    for i in range(size):
        at = slice(i * gap, i * gap + step * (count - 1) + 1, step)
        index = (slice(None),) * axis + (at,)
        entry = Gaussian(mean[index], var[index])
        best = entry if best is None else _select(best, entry) if how == "select" else max_of_two(best, entry)
    assert best is not None
    return best


@register_moment_rule(aten.max_pool2d, how="select")
def max_pool2d(
    x: Gaussian, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *,
    how: str = "select",
) -> Gaussian:  # fmt: skip
    """Largest of every window."""
    return _pool(x, kernel, stride, padding, dilation, ceil_mode, how, 2)


@register_moment_rule(aten.max_pool1d, how="select")
def max_pool1d(
    x: Gaussian, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *,
    how: str = "select",
) -> Gaussian:  # fmt: skip
    """Largest of every window."""
    return _pool(x, kernel, stride, padding, dilation, ceil_mode, how, 1)


def average(mean: Tensor, var: Tensor, std: Tensor | None, n: int, rho: float) -> Gaussian:
    """From the plain averages of means, variances and standard deviations over n entries."""
    own = var / n
    return Gaussian(mean, own if std is None or rho == 0 else rho * std.square() + (1 - rho) * own)


def _averaged(x: Gaussian, pool: Any, n: int, rho: float) -> Gaussian:
    v = variance(x)
    return average(pool(x.mean), pool(v), pool(v.clamp_min(1e-20).sqrt()) if rho else None, n, rho)


@register_moment_rule(aten.avg_pool2d, aten.avg_pool1d, rho=0.0)
def avg_pool(
    x: Gaussian, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor: int | None = None, *, rho: float = 0.0,
) -> Gaussian:  # fmt: skip
    """Mean of every window."""
    padded = any(sizes_of(padding, 1)) or (isinstance(padding, Sequence) and any(padding))
    if ceil_mode or divisor is not None or (padded and not count_include_pad):
        raise UnsupportedLayerError("average pooling with ceil_mode, a divisor or an uncounted border has no rule")
    n = 1 if isinstance(kernel, Sequence) and len(kernel) == 1 else 2
    sizes, steps, pads = sizes_of(kernel, n), sizes_of(stride or kernel, n), sizes_of(padding, n)
    function = F.avg_pool1d if n == 1 else F.avg_pool2d
    return _averaged(x, lambda t: function(t, sizes, steps, pads), math.prod(sizes), rho)


@register_moment_rule(aten.adaptive_avg_pool2d, aten.adaptive_avg_pool1d, rho=0.0)
def adaptive_avg_pool(x: Gaussian, size: Sequence[int], *, rho: float = 0.0) -> Gaussian:
    """Mean of every window of equal windows."""
    spatial = x.mean.shape[-len(size) :]
    if any(have % want for have, want in zip(spatial, size, strict=True)):
        raise UnsupportedLayerError(
            f"average pooling of {tuple(spatial)} to {tuple(size)} has unequal windows, no rule"
        )
    n = math.prod(spatial) // math.prod(size)
    function: Any = F.adaptive_avg_pool1d if len(size) == 1 else F.adaptive_avg_pool2d
    return _averaged(x, lambda t: function(t, list(size)), n, rho)


@register_moment_rule(aten.mean, rho=0.0)
def mean(x: Gaussian, dims: Any = None, keepdim: bool = False, *, rho: float = 0.0) -> Gaussian:
    """Mean over dimensions."""
    over = tuple(range(x.mean.dim())) if dims is None else tuple(sizes_of(dims, 1) if isinstance(dims, int) else dims)
    n = math.prod(x.mean.shape[d] for d in over)
    return _averaged(x, lambda t: t.mean(over, keepdim=keepdim), n, rho)


def sizes_of(value: Any, n: int) -> tuple[int, ...]:
    """One size a dimension, from a number or a list."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) if len(value) == n else (int(value[0]),) * n
