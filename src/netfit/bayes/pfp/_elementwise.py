"""Moments of element-wise functions: ReLU and its kin in closed form, everything smooth by quadrature, sums, products.

Variances are sums of terms that are not negative wherever that is possible, never E[x^2] - E[x]^2: at |mean| / std of
10^4 the difference has lost every digit of float32.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netfit.bayes._gaussian import Gaussian
from netfit.errors import UnsupportedLayerError

from ._registry import register_moment_rule

__all__ = ["SMOOTH", "max_of_two", "quadrature", "relu", "slope", "variance"]

aten = torch.ops.aten
_LEAST = 1e-20  # variance below which a number counts as known; its root still squares to a normal float32
_NODES, _REACH = 48, 6.0  # points of a quadrature, and the standard deviations they span to either side


def variance(x: Gaussian) -> Tensor:
    """Variances, zeros where the tensor is known exactly."""
    return torch.zeros_like(x.mean) if x.var is None else x.var


def _normal(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Phi(a), 1 - Phi(a) and phi(a), each with full relative precision."""
    upper, lower = torch.special.erfc(a / math.sqrt(2)) / 2, torch.special.erfc(-a / math.sqrt(2)) / 2
    return lower, upper, torch.exp(-a.square() / 2) / math.sqrt(2 * math.pi)


@register_moment_rule(aten.relu, aten.relu_)
def relu(x: Gaussian) -> Gaussian:
    """max(0, x): with a = m / s, mean s (a Phi + phi), variance v (Phi + a^2 Phi Q + a phi (Q - Phi) - phi^2)."""
    return leaky_relu(x, 0.0)


@register_moment_rule(aten.leaky_relu, aten.leaky_relu_)
def leaky_relu(x: Gaussian, negative_slope: float = 0.01) -> Gaussian:
    """c x + (1 - c) max(0, x); the covariance of x and max(0, x) is v Phi."""
    v = variance(x).clamp_min(_LEAST)
    s = v.sqrt()
    a = (x.mean / s).clamp(-1e8, 1e8)  # whose square is still finite
    below, above, density = _normal(a)
    mean = x.mean * below + s * density
    share = below + a.square() * below * above + a * density * (above - below) - density.square()
    c = negative_slope
    if c == 0:
        return Gaussian(mean, variance(x) * share.clamp_min(0))
    var = c * c + (1 - c) ** 2 * share.clamp_min(0) + 2 * c * (1 - c) * below
    return Gaussian(c * x.mean + (1 - c) * mean, variance(x) * var.clamp_min(0))


def max_of_two(x: Gaussian, y: Gaussian) -> Gaussian:
    """The larger of two independent Gaussians: "The Greatest of a Finite Set of Random Variables" (Clark, 1961)."""
    v1, v2 = variance(x), variance(y)
    spread = (v1 + v2).clamp_min(_LEAST)
    theta = spread.sqrt()
    a = ((x.mean - y.mean) / theta).clamp(-30, 30)  # beyond, one of them is the maximum in any precision
    first, second, density = _normal(a)
    mean = x.mean * first + y.mean * second + theta * density
    shared = a.square() * first * second + a * density * (second - first) - density.square()
    return Gaussian(mean, (v1 * first + v2 * second + spread * shared).clamp_min(0))


@register_moment_rule(aten.maximum)
def maximum(x: Any, y: Any) -> Gaussian:
    """Element-wise maximum."""
    return max_of_two(_gaussian(x), _gaussian(y))


@functools.cache
def _nodes(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    points = torch.linspace(-_REACH, _REACH, _NODES, dtype=torch.float64)
    weights = torch.exp(-points.square() / 2)
    return points.to(dtype), (weights / weights.sum()).to(dtype)


def quadrature(function: Callable[[Tensor], Tensor], x: Gaussian) -> Gaussian:
    """Moments of any smooth element-wise function by the trapezoidal rule.

    With the weight of a Gaussian it converges exponentially: at 48 points it is ten thousand times nearer for tanh than
    Gauss-Hermite quadrature, whose points lie too far apart where they matter.
    """
    points, weights = _nodes(x.mean.dtype)
    shape = (-1,) + (1,) * x.mean.dim()
    points, weights = points.reshape(shape), weights.reshape(shape)
    y = function(x.mean + variance(x).clamp_min(_LEAST).sqrt() * points)
    mean = (weights * y).sum(0)
    return Gaussian(mean, (weights * (y - mean).square()).sum(0))


def _smooth(function: Callable[..., Tensor]) -> Callable[..., Gaussian]:
    def rule(x: Gaussian, *args: Any, **kwargs: Any) -> Gaussian:
        return quadrature(lambda t: function(t, *args, **kwargs), x)

    return rule


SMOOTH: dict[str, Callable[..., Tensor]] = {
    "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "elu": F.elu, "mish": F.mish,
    "softplus": F.softplus,
}  # fmt: skip
for _name, _function in SMOOTH.items():
    for _target in (_name, f"{_name}_"):
        if hasattr(aten, _target):
            register_moment_rule(getattr(aten, _target))(_smooth(_function))


def slope(kind: str, x: Gaussian, *args: Any) -> Tensor:
    """E[f'(x)] of an activation, which is Cov(x, f(x)) / Var(x)."""
    s = variance(x).clamp_min(_LEAST).sqrt()
    if kind in ("relu", "leaky_relu"):
        below = _normal((x.mean / s).clamp(-1e8, 1e8))[0]
        c = args[0] if args else 0.01
        return below if kind == "relu" else c + (1 - c) * below
    points, weights = _nodes(x.mean.dtype)
    shape = (-1,) + (1,) * x.mean.dim()
    points, weights = points.reshape(shape), weights.reshape(shape)
    return (weights * points * SMOOTH[kind](x.mean + s * points, *args)).sum(0) / s


@register_moment_rule(aten.add, aten.add_)
def add(x: Any, y: Any, alpha: float = 1) -> Gaussian:
    """Sum of independent tensors, or of one with itself."""
    return _sum(x, y, float(alpha))


@register_moment_rule(aten.sub, aten.sub_)
def sub(x: Any, y: Any, alpha: float = 1) -> Gaussian:
    """Difference of independent tensors."""
    return _sum(x, y, -float(alpha))


def _sum(x: Any, y: Any, alpha: float) -> Gaussian:
    if x is y:
        return Gaussian((1 + alpha) * x.mean, (1 + alpha) ** 2 * variance(x))
    x, y = _gaussian(x, y), _gaussian(y, x)
    mean = x.mean + alpha * y.mean
    return Gaussian(mean, (variance(x) + alpha**2 * variance(y)).expand_as(mean))


@register_moment_rule(aten.mul, aten.mul_)
def mul(x: Any, y: Any) -> Gaussian:
    """Product with a constant, or of independent tensors."""
    if x is y:
        raise UnsupportedLayerError("the square of a random tensor has no rule: use fallback='quadrature'")
    x, y = _gaussian(x, y), _gaussian(y, x)
    mean = x.mean * y.mean
    (m1, v1), (m2, v2) = (x.mean, variance(x)), (y.mean, variance(y))
    return Gaussian(mean, (m1.square() * v2 + m2.square() * v1 + v1 * v2).expand_as(mean))


@register_moment_rule(aten.div, aten.div_)
def div(x: Any, y: Any) -> Gaussian:
    """Quotient by a constant."""
    if isinstance(y, Gaussian) and y.var is not None:
        raise UnsupportedLayerError("a quotient by a random tensor has no rule: use fallback='mc'")
    return mul(x, 1 / (y.mean if isinstance(y, Gaussian) else y))


def _gaussian(x: Any, like: Any = None) -> Gaussian:
    if isinstance(x, Gaussian):
        return x
    return Gaussian(x if isinstance(x, Tensor) else torch.as_tensor(x, dtype=like.mean.dtype))
