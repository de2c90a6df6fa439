"""A threshold for scores of unknown distribution: peaks over threshold."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netfit.errors import ConfigError
from netfit.streaming import State

__all__ = ["SPOT", "Spot", "fit_tail"]


@dataclass(frozen=True)
class SPOT:
    """Alarm rate `q` by a generalised Pareto fit of the scores' tail, while they stream.

    "Anomaly Detection in Streams with Extreme Value Theory" (Siffer et al., 2017). There no alarm updates the fit: it
    then sees a tail cut off at its own threshold, and four times as many alarms as asked for follow. Here alarms do, up
    to twice as many as are expected, and clipped to twice the threshold; a long fault changes little. There the level
    is that of the first scores for ever, and no threshold can fall below it; here it is found again, every `warmup`
    scores, among the last `memory`, so that the rate follows `q` when scores become smaller than they were at first.

    Args:
        q: share of rows that may raise an alarm.
        level: quantile of the scores above which the tail begins.
        warmup: scores before the first threshold, and from one level to the next.
        memory: scores that a level is found among.
        depth: None, or the number of scores whose running mean is taken off first (DSPOT).
        fit: ``"pwm"`` (probability-weighted moments: Hosking and Wallis, 1987) or ``"likelihood"`` (the maximum over
            Grimshaw's one-dimensional profile, 1993).

    Raises:
        ConfigError: a number is out of range.

    Example:
        >>> spot = SPOT(q=1e-3).start()
        >>> alarms = spot.run(np.random.default_rng(0).exponential(size=3000))
        >>> int(alarms.sum()) <= 9, bool(spot.update(30.0))
        (True, True)
    """

    q: float = 1e-3
    level: float = 0.98
    warmup: int = 288
    memory: int = 1024
    depth: int | None = None
    fit: Literal["pwm", "likelihood"] = "pwm"

    def __post_init__(self) -> None:
        for name in ("q", "level"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}: choose a share between 0 and 1, without them")
        if self.q >= 1 - self.level:
            raise ConfigError(f"q={self.q} is not rarer than the tail above level={self.level}: lower one of them")
        if self.warmup < 10 or self.memory < self.warmup or (self.depth is not None and self.depth < 1):
            raise ConfigError(
                f"warmup={self.warmup}, memory={self.memory}, depth={self.depth}: choose at least 10, the warm-up and 1"
            )
        if self.fit not in ("pwm", "likelihood"):
            raise ConfigError(f"fit={self.fit!r}: choose 'pwm' or 'likelihood'")

    def start(self) -> "Spot":
        """A threshold that has seen no score."""
        return Spot(self)


class Spot:
    """A running `SPOT`.

    Args:
        config: what to ask for.

    Attributes:
        threshold: alarms lie above it; infinite during the warm-up, relative to the running mean with `depth`.
    """

    def __init__(self, config: SPOT) -> None:
        self._config = config
        self._last: deque[float] = deque(maxlen=config.memory)
        self._peaks: list[float] = []
        self._recent: deque[float] = deque(maxlen=config.depth or 1)
        self._base, self._due = math.inf, config.warmup
        self._n = self._kept = self._counted = 0
        self.threshold = math.inf

    @property
    def ready(self) -> bool:
        """Whether the warm-up is over."""
        return math.isfinite(self.threshold)

    def update(self, score: float) -> bool:
        """Take the next score; NaN counts for nothing. Returns whether it is an alarm."""
        if not math.isfinite(score):
            return score == math.inf and self.ready
        mean = sum(self._recent) / len(self._recent) if self._config.depth and self._recent else 0.0
        value = score - mean
        alarm = self.ready and value > self.threshold
        if alarm:
            if self._kept >= 2 * self._config.q * self._n + 1:
                return True
            self._kept += 1
            value = min(value, 2 * self.threshold - self._base)
        self._last.append(value)
        self._n, self._counted, self._due = self._n + 1, self._counted + 1, self._due - 1
        if not self._due:
            self._find_level()
        elif value > self._base:
            self._peaks.append(value - self._base)
            self._refit()
        if not alarm:
            self._recent.append(score)
        return alarm

    def run(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """`update` for each of them."""
        values: Iterable[float] = np.asarray(scores, np.float64).tolist()
        return np.array([self.update(s) for s in values], bool)

    def _find_level(self) -> None:
        last, self._counted = np.array(self._last), len(self._last)
        self._base, self._due = float(np.quantile(last, self._config.level)), self._config.warmup
        self._peaks = (last[last > self._base] - self._base).tolist()
        self._refit()

    def _refit(self) -> None:
        excess = np.array(self._peaks)
        if len(excess) < 2 or excess.max() <= 0:  # scores so far hardly differ: anything above them is news
            self.threshold = self._base + max(float(excess.max(initial=0)), 1e-9 * max(1.0, abs(self._base)))
            return
        shape, scale = fit_tail(excess, self._config.fit)
        ratio = self._config.q * self._counted / len(excess)
        stretch = -math.log(ratio) if abs(shape) < 1e-6 else (ratio**-shape - 1) / shape
        self.threshold = self._base + max(scale * stretch, 0.0)

    def state(self) -> State:
        """What a restart needs."""
        numbers = np.array([self._base, self.threshold, self._n, self._kept, self._counted, self._due])
        arrays = {"last": self._last, "peaks": self._peaks, "recent": self._recent}
        return {"numbers": numbers, **{name: np.array(v, np.float64) for name, v in arrays.items()}}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        self._base, self.threshold, *counts = state["numbers"].tolist()
        self._n, self._kept, self._counted, self._due = (int(v) for v in counts)
        self._peaks = state["peaks"].tolist()
        for kept, name in ((self._last, "last"), (self._recent, "recent")):
            kept.clear()
            kept.extend(state[name].tolist())


def fit_tail(excess: NDArray[np.float64], method: Literal["pwm", "likelihood"] = "pwm") -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution.

    Args:
        excess: positive values, at least two.
        method: probability-weighted moments, or the largest likelihood.

    Returns:
        shape (0 is exponential, above 0 has a heavier tail) and scale.
    """
    x = np.sort(np.asarray(excess, np.float64))
    n, mean = len(x), float(x.mean())
    weighted = float(np.mean((1 - (np.arange(1, n + 1) - 0.35) / n) * x))
    room = mean - 2 * weighted
    start = 0.0, mean
    if room > 1e-12 * mean:
        # The moments exist below 1; a steeper tail than that is the sample's, not the scores'.
        start = min(2 - mean / room, 0.9), 2 * mean * weighted / room
    return _most_likely(x, start) if method == "likelihood" else start


def _most_likely(x: NDArray[np.float64], start: tuple[float, float]) -> tuple[float, float]:
    """Grimshaw's reduction: with t = shape / scale the likelihood has one parameter; a grid closes in on its top."""
    low, high = -1 / x[-1] * (1 - 1e-6), 20 / float(x.mean())
    grid = np.concatenate([np.linspace(low, 0, 33)[:-1], np.geomspace(1e-6, 1, 32) * high, [start[0] / start[1]]])
    best = 0.0, float(x.mean())
    top = -len(x) * (math.log(best[1]) + 1)
    for _ in range(4):
        grid = np.sort(grid[(grid > -1 / x[-1]) & (grid != 0)])
        shape = np.log1p(grid[:, None] * x).mean(1)
        ok = shape / grid > 0
        value = np.where(ok, -len(x) * (np.log(np.where(ok, shape / grid, 1.0)) + 1 + shape), -np.inf)
        at = int(value.argmax())
        if value[at] > top:
            top, best = float(value[at]), (float(shape[at]), float(shape[at] / grid[at]))
        grid = np.linspace(grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)], 33)
    return best
