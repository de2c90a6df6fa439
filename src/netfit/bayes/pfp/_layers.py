"""Moments of linear layers, convolutions and normalisations."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netfit.bayes._gaussian import Gaussian
from netfit.errors import UnsupportedLayerError

from ._elementwise import variance
from ._registry import register_moment_rule

__all__ = ["linear"]

aten = torch.ops.aten
Value = Gaussian | Tensor | None


def _mean(x: Value) -> Tensor | None:
    return x.mean if isinstance(x, Gaussian) else x


def _var(x: Value) -> Tensor | None:
    return x.var if isinstance(x, Gaussian) else None


def _weighted(product: Callable[..., Tensor], x: Value, weight: Value, bias: Value) -> Gaussian:
    """v_y = W_var (m^2 + v) + W_mean^2 v + b_var: sums of what is not negative."""
    m, v, mu, w = _mean(x), _var(x), _mean(weight), _var(weight)
    assert m is not None and mu is not None
    out = product(m, mu, _mean(bias))
    var = None
    if w is not None:
        var = product(m.square() if v is None else m.square() + v, w, _var(bias))
    elif _var(bias) is not None:
        raise UnsupportedLayerError("a bias with variance needs a weight with variance")
    if v is not None:
        own = product(v, mu.square(), None)
        var = own if var is None else var + own
    return Gaussian(out, var)


@register_moment_rule(aten.linear)
def linear(x: Value, weight: Value, bias: Value = None) -> Gaussian:
    """x @ weight.T + bias."""
    return _weighted(F.linear, x, weight, bias)


@register_moment_rule(aten.conv1d)
def conv1d(x: Value, weight: Value, bias: Value = None, *settings: Any, **named: Any) -> Gaussian:
    """The convolution; stride, padding, dilation and groups as they are."""
    return _weighted(lambda a, w, b: F.conv1d(a, w, b, *settings, **named), x, weight, bias)


@register_moment_rule(aten.conv2d)
def conv2d(x: Value, weight: Value, bias: Value = None, *settings: Any, **named: Any) -> Gaussian:
    """The convolution; stride, padding, dilation and groups as they are."""
    return _weighted(lambda a, w, b: F.conv2d(a, w, b, *settings, **named), x, weight, bias)


@register_moment_rule(aten.batch_norm)
def batch_norm(
    x: Gaussian, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, training: bool,
    momentum: float, eps: float, _cudnn: bool = False,
) -> Gaussian:  # fmt: skip
    """A fixed affine map per channel."""
    if training:
        raise UnsupportedLayerError("batch norm with the statistics of the batch has no rule: call eval() first")
    scale = torch.rsqrt(var + eps) if weight is None else weight * torch.rsqrt(var + eps)
    shape = (1, -1) + (1,) * (x.mean.dim() - 2)
    shift = -mean * scale if bias is None else bias - mean * scale
    return Gaussian(x.mean * scale.reshape(shape) + shift.reshape(shape), variance(x) * scale.square().reshape(shape))


@register_moment_rule(aten.layer_norm)
def layer_norm(
    x: Gaussian, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    _cudnn: bool = False,
) -> Gaussian:  # fmt: skip
    """Layer norm whose own scale is taken at its expectation: E[spread] = spread of means + mean of variances."""
    dims = tuple(range(-len(shape), 0))
    n = 1
    for size in shape:
        n *= size
    v = variance(x)
    centred = x.mean - x.mean.mean(dims, keepdim=True)
    own = v * (1 - 2 / n) + v.mean(dims, keepdim=True) / n  # of x - mean(x)
    scale = torch.rsqrt(centred.square().mean(dims, keepdim=True) + own.mean(dims, keepdim=True) + eps)
    mean, var = centred * scale, own.clamp_min(0) * scale.square()
    if weight is not None:
        mean, var = mean * weight, var * weight.square()
    return Gaussian(mean if bias is None else mean + bias, var)
