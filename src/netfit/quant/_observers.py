"""The range of a tensor that a quantizer should cover, by four rules."""

from typing import Literal, get_args

import torch
from torch import Tensor

from netfit.errors import ConfigError, did_you_mean
from netfit.quant._affine import Affine, fake_quantize
from netfit.quant._axis import other_dims

Observer = Literal["minmax", "moving_average", "percentile", "mse"]

_SAMPLE = 1 << 16  # values per tensor that percentile and mse look at
_TAIL = 1e-4  # share of values that percentile leaves out at either end
_SHRINK = torch.linspace(1.0, 0.2, 33).tolist()  # mse: parts of the full range it tries


def check_observer(name: str) -> None:
    """Refuse a rule that does not exist."""
    if name not in get_args(Observer):
        raise ConfigError(f"observer={name!r} is not known: {did_you_mean(name, get_args(Observer))}")


def observed_range(x: Tensor, format: Affine, observer: Observer) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of `x` to represent, fp32, shape () or (channels,)."""
    x = x.detach().float()
    if observer == "percentile":
        return _percentile(x, format.axis)
    if observer == "mse":
        return _least_squares(x, format)
    return _extremes(x, format.axis)


def merged_range(
    old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], seen: Tensor, observer: Observer
) -> tuple[Tensor, Tensor]:
    """Range after one more tensor: extremes for minmax; else the mean, with a memory of 100 tensors."""
    if observer == "minmax":
        return torch.minimum(old[0], new[0]), torch.maximum(old[1], new[1])
    weight = (1.0 / (seen + 1.0)).clamp_min(0.01)
    return torch.lerp(old[0], new[0], weight), torch.lerp(old[1], new[1], weight)


def _extremes(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    if axis is None:
        lo, hi = torch.aminmax(x)
        return lo, hi
    dims = other_dims(x, axis)
    return x.amin(dims), x.amax(dims)


def _sample(x: Tensor) -> Tensor:
    # An odd stride does not fall into step with image rows and channels, whose sizes are mostly even.
    return x.flatten()[:: (x.numel() // _SAMPLE) | 1]


def _percentile(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    rows = _sample(x)[None] if axis is None else x.movedim(axis, 0).flatten(1)
    ends = torch.quantile(rows, torch.tensor([_TAIL, 1 - _TAIL], device=x.device), dim=1)
    return (ends[0, 0], ends[1, 0]) if axis is None else (ends[0], ends[1])


def _least_squares(x: Tensor, format: Affine) -> tuple[Tensor, Tensor]:
    """The shrunken full range with the least squared error, each channel on its own."""
    axis = format.axis
    lo, hi = _extremes(x, axis)
    if axis is None:
        x = _sample(x)
    dims = other_dims(x, axis)
    best, part = torch.full_like(lo, torch.inf), torch.ones_like(lo)
    for shrink in _SHRINK:
        scale, zero_point = format.qparams(lo * shrink, hi * shrink)
        error = (fake_quantize(x, scale, zero_point, format.qmin, format.qmax, axis) - x).square().sum(dims)
        part = torch.where(error < best, shrink, part)
        best = torch.minimum(error, best)
    return lo * part, hi * part
