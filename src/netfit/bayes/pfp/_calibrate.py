"""Measure where the approximation fails, and choose the pooling rules that fail least."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from netfit.bayes._gaussian import Gaussian
from netfit.errors import ConfigError
from netfit.seeding import derive

from ._elementwise import variance
from ._head import logits
from ._module import PFP
from ._program import Step, apply, replaced

__all__ = ["CalibrationReport", "Place", "calibrate_pfp"]

_GOOD = (0.9, 1.1)  # of a standard deviation, relative to sampling
_LEAST_RATIO = 0.01  # below, there is no variance worth a factor
_QUIET = 0.01  # of a layer's typical spread: entries below say nothing about the rest


@dataclass(frozen=True)
class Place:
    """One operator after calibration.

    Attributes:
        site: its call site.
        kind: the operator.
        setting: what was chosen, such as ``"how=select"``; empty where nothing can be.
        std_ratio: median of the pass's standard deviation over the sampled one.
        mean_error: rms error of the mean, in sampled standard deviations.
    """

    site: str
    kind: str
    setting: str
    std_ratio: float
    mean_error: float

    @property
    def good(self) -> bool:
        """Whether the standard deviation is within a tenth of the sampled one."""
        return _GOOD[0] <= self.std_ratio <= _GOOD[1]


@dataclass(frozen=True)
class CalibrationReport:
    """Every operator that carries variance, in order.

    Attributes:
        places: one for each.
        samples: networks drawn.
        images: inputs they were run on.
    """

    places: tuple[Place, ...]
    samples: int
    images: int

    def failing(self) -> list[Place]:
        """Places whose standard deviation is off by more than a tenth."""
        return [place for place in self.places if not place.good]


@torch.no_grad()
def calibrate_pfp(pfp: PFP, x: Tensor, *, samples: int = 200, seed: int = 0) -> CalibrationReport:
    """Compare every layer with sampling, and set the rules of maxima and averages in place.

    No rule knows that channels of one pooled image covary. Where the logits' standard deviations are off by more than a
    tenth in the end, all their variances get one factor, after which the median ratio is 1.

    Places whose setting the caller of `to_pfp` chose are compared, not changed. The choice is made in the order of the
    graph, each with the ones before it already made.

    Args:
        pfp: changed in place.
        x: some tens of typical inputs.
        samples: networks to draw.
        seed: of the draws.

    Raises:
        ConfigError: fewer than 20 samples, or no input.
    """
    if samples < 20 or len(x) == 0:
        raise ConfigError(f"{samples} samples of {len(x)} inputs: give at least 20 and 1")
    pfp.scale = 1.0
    truth = _sampled(pfp, x, samples, seed)
    env: dict[str, Any] = {**pfp.weights(), pfp.program.inputs[0]: Gaussian(x)}
    places = []
    for step in pfp.program.steps:
        args, kwargs = replaced((step.args, step.kwargs), lambda ref: env[ref.name])
        if step.settings and not step.fixed and step.name in truth:
            _settle(step, args, kwargs, truth[step.name])
        result = apply(step, args, kwargs)
        env[step.name] = result
        if step.kind.endswith("_"):
            env[step.inputs()[0]] = result
        if isinstance(result, Gaussian) and result.var is not None and step.name in truth:
            if pfp.head is not None and step is pfp.head.last:
                result = logits(pfp.head, env, result)  # whose variance knows of the covariance before it
            ratio, error = _compared(result, truth[step.name])
            setting = ", ".join(f"{k}={v if isinstance(v, str) else round(v, 3)}" for k, v in step.settings.items())
            places.append(Place(step.site, step.kind, setting, ratio, error))
    if places and not places[-1].good:
        pfp.scale = max(places[-1].std_ratio, _LEAST_RATIO) ** -2
        places[-1] = replace(places[-1], setting=f"scale={pfp.scale:.3g}", std_ratio=1.0)
    return CalibrationReport(tuple(places), samples, len(x))


def _sampled(pfp: PFP, x: Tensor, samples: int, seed: int) -> dict[str, Gaussian]:
    """Mean and variance of every tensor of the graph over networks drawn from the posterior (Welford, 1962)."""
    weights = pfp.weights()
    generator = torch.Generator()
    mean: dict[str, Tensor] = {}
    spread: dict[str, Tensor] = {}
    for n in range(1, samples + 1):
        generator.manual_seed(derive(seed, "calibrate", n))
        drawn = {name: _draw(value, generator) for name, value in weights.items()}

        def collect(step: Step, value: Any, n: int = n) -> None:
            if isinstance(value, Tensor) and value.is_floating_point():
                old = mean.setdefault(step.name, torch.zeros_like(value))
                new = old + (value - old) / n
                spread[step.name] = spread.get(step.name, 0) + (value - old) * (value - new)
                mean[step.name] = new

        pfp.program.run({**drawn, pfp.program.inputs[0]: x}, watch=collect, moments=False)
    return {name: Gaussian(mean[name], spread[name] / (samples - 1)) for name in mean}


def _draw(value: Any, generator: torch.Generator) -> Any:
    if not isinstance(value, Gaussian):
        return value
    noise = torch.randn(value.mean.shape, generator=generator, dtype=value.mean.dtype)
    return value.mean + value.std() * noise


def _settle(step: Step, args: tuple[Any, ...], kwargs: Mapping[str, Any], truth: Gaussian) -> None:
    """The setting of one place that comes nearest to sampling."""
    if "rho" in step.settings:
        low, high = (_with(step, args, kwargs, rho=rho) for rho in (0.0, 1.0))
        reach = variance(high) - variance(low)
        best = (reach * (variance(truth) - variance(low))).sum() / reach.square().sum().clamp_min(1e-30)
        step.settings["rho"] = float(best.clamp(0, 1))
    if "how" in step.settings:
        errors = {}
        for how in ("select", "clark"):
            ratio, error = _compared(_with(step, args, kwargs, how=how), truth)
            errors[how] = abs(torch.tensor(max(ratio, 1e-9)).log().item()) + error
        step.settings["how"] = min(errors, key=errors.__getitem__)


def _with(step: Step, args: tuple[Any, ...], kwargs: Mapping[str, Any], **settings: Any) -> Gaussian:
    assert step.rule is not None
    return step.rule(*args, **kwargs, **{**step.settings, **settings})


def _compared(mine: Gaussian, truth: Gaussian) -> tuple[float, float]:
    """Median ratio of standard deviations, and rms error of the mean in standard deviations."""
    std = truth.std()
    heard = std > _QUIET * std.square().mean().sqrt()
    if not bool(heard.any()):
        return 1.0, 0.0
    ratio = (mine.std()[heard] / std[heard]).median()
    error = ((mine.mean - truth.mean)[heard] / std[heard]).square().mean().sqrt()
    return float(ratio), float(error)
