"""From accuracies at noise levels to one number a site, and from all sites to one number a network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from netfit.errors import ConfigError

__all__ = ["Midpoint", "combine_midpoints", "mean_midpoint", "midpoint", "multi_execution"]


@dataclass(frozen=True)
class Midpoint:
    """Standard deviation at which the accuracy is half way between clean and chance.

    Attributes:
        std: the level; when censored, the largest one that was tried.
        low: end of the 95 % confidence interval; None when it cannot be told.
        high: other end.
        slope: steepness k of the logistic; None when the level was interpolated.
        censored: the accuracy never fell that low, so the midpoint lies above `std`.
    """

    std: float
    low: float | None = None
    high: float | None = None
    slope: float | None = None
    censored: bool = False

    def __str__(self) -> str:
        return f"> {self.std:.3g}" if self.censored else f"{self.std:.3g}"


def midpoint(
    stds: Sequence[float],
    accuracies: Sequence[float],
    *,
    clean: float,
    chance: float,
    method: Literal["logistic", "interp"] = "logistic",
) -> Midpoint:
    """Midpoint noise level of one accuracy curve.

    Args:
        stds: noise levels (L,), any order; zeros are left out.
        accuracies: accuracy at each of them (L,), 0 to 1.
        clean: accuracy without noise.
        chance: accuracy of guessing.
        method: fit ``chance + (clean - chance) / (1 + (std / midpoint)^slope)`` when at least four levels are
            informative, or interpolate linearly in log std at the first crossing.

    Raises:
        ConfigError: clean is not above chance, or the lists differ in length or hold no positive level.

    Example:
        >>> str(midpoint([1, 2, 4], [0.9, 0.7, 0.3], clean=0.9, chance=0.1))
        '2.83'
        >>> str(midpoint([1, 2], [0.9, 0.8], clean=0.9, chance=0.1))
        '> 2'
    """
    if not chance < clean:
        raise ConfigError(f"no midpoint: the clean accuracy {clean:.4g} is not above chance, {chance:.4g}")
    if len(stds) != len(accuracies):
        raise ConfigError(f"a midpoint needs as many levels as accuracies, not {len(stds)} and {len(accuracies)}")
    points = sorted((float(s), float(a)) for s, a in zip(stds, accuracies, strict=True) if s > 0)
    if not points:
        raise ConfigError("a midpoint needs at least one level above 0")
    half = (clean + chance) / 2
    crossing = next((i for i, (_, a) in enumerate(points) if a < half), None)
    if crossing is None:
        return Midpoint(points[-1][0], censored=True)
    start = _interpolated(points, crossing, half)
    return (_fitted(points, clean, chance, start) if method == "logistic" else None) or Midpoint(start)


def _interpolated(points: Sequence[tuple[float, float]], crossing: int, half: float) -> float:
    (s1, a1) = points[crossing]
    if crossing == 0:
        return s1  # already below at the lowest level: an upper bound is all there is
    (s0, a0) = points[crossing - 1]
    part = (a0 - half) / (a0 - a1)
    return s0 * (s1 / s0) ** part


def _fitted(points: Sequence[tuple[float, float]], clean: float, chance: float, start: float) -> Midpoint | None:
    """Least squares of the logistic; None where the points do not fix it."""
    x = np.log([s for s, _ in points])
    y = (np.array([a for _, a in points]) - chance) / (clean - chance)
    if np.sum((y > 0.02) & (y < 0.98)) < 2 or len(points) < 4:
        return None
    from scipy.optimize import OptimizeWarning, curve_fit

    def logistic(x: Any, mu: float, k: float) -> Any:
        return 1 / (1 + np.exp(np.clip(k * (x - mu), -60, 60)))

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)
        try:
            (mu, k), covariance = curve_fit(logistic, x, y, p0=(math.log(start), 2.0), maxfev=2000)
        except (RuntimeError, OptimizeWarning):
            return None
    if not (k > 0 and x[0] - 1 <= mu <= x[-1] + 1):
        return None
    spread = _t(len(points) - 2) * math.sqrt(max(float(covariance[0, 0]), 0.0))
    return Midpoint(math.exp(mu), math.exp(mu - spread), math.exp(mu + spread), float(k))


def _t(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))


def mean_midpoint(found: Sequence[Midpoint]) -> Midpoint:
    """One midpoint from those of several seeds: geometric mean, with Student's interval of the logarithms."""
    if len(found) == 1 or any(m.censored for m in found):
        return min(found, key=lambda m: m.std) if len(found) == 1 else _censored(found)
    logs = np.log([m.std for m in found])
    mean, half = float(logs.mean()), _t(len(found) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(found))
    slopes = [m.slope for m in found if m.slope is not None]
    slope = float(np.mean(slopes)) if slopes else None
    return Midpoint(math.exp(mean), math.exp(mean - half), math.exp(mean + half), slope)


def _censored(found: Sequence[Midpoint]) -> Midpoint:
    """Some seeds never crossed: the mean is a lower bound, and says so."""
    logs = np.log([m.std for m in found])
    return Midpoint(math.exp(float(logs.mean())), censored=True)


def combine_midpoints(stds: Sequence[float]) -> float:
    """Midpoint of the same noise at all sites at once, from those of single sites: ``(sum std_i^-2)^-1/2``.

    Independent additive errors add up in variance. A rule of thumb, 10 to 17 % too high on the networks tried.

    >>> round(combine_midpoints([2.0, 2.0, 2.0, 2.0]), 6)
    1.0
    """
    _positive(stds)
    return float(sum(s**-2 for s in stds)) ** -0.5


def multi_execution(stds: Sequence[float], budget: int, cost: Sequence[float] | None = None) -> list[int]:
    """How often to run each site, so that averaging helps where noise hurts.

    Every further execution goes to the site where it takes most off the summed variance ``sum std_i^-2 / n_i``, per
    cost; the repeats come out in proportion to ``1 / (std_i sqrt(cost_i))``.

    Args:
        stds: midpoint of each site.
        budget: executions in all, or cost in all when `cost` is given.
        cost: of one execution of each site; 1 each when None.

    Raises:
        ConfigError: the budget does not pay one execution of each site, or a midpoint or cost is not positive.

    Example:
        >>> multi_execution([1.0, 4.0, 4.0], budget=6)
        [4, 1, 1]
    """
    costs = [1.0] * len(stds) if cost is None else list(cost)
    _positive(stds)
    _positive(costs)
    if len(costs) != len(stds):
        raise ConfigError(f"multi_execution needs a cost for each of the {len(stds)} sites, not {len(costs)}")
    if budget < sum(costs):
        raise ConfigError(f"a budget of {budget} does not pay one execution of each of {len(stds)} sites")
    repeats, left = [1] * len(stds), budget - sum(costs)
    while affordable := [i for i in range(len(stds)) if costs[i] <= left]:
        # What one more execution takes off std_i^-2 / n, per cost.
        best = max(affordable, key=lambda i: 1 / (repeats[i] * (repeats[i] + 1) * stds[i] ** 2 * costs[i]))
        repeats[best] += 1
        left -= costs[best]
    return repeats


def _positive(values: Sequence[float]) -> None:
    bad = [v for v in values if not (math.isfinite(v) and v > 0)]
    if bad or not values:
        raise ConfigError(f"midpoints and costs must be positive numbers, not {bad[0] if bad else 'none at all'}")
