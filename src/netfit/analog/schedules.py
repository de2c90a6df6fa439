"""How the standard deviation of noise moves over training steps, or over the life of a device.

A schedule is a frozen dataclass that is called with (step, batch size) and returns one number, or one number a sample.
`HalfNormal` draws from torch's global generator, which a resumed training restores; the others depend on the step only.
"""

import csv
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from netfit.errors import ConfigError

__all__ = ["Constant", "HalfNormal", "LinearRamp", "OrnsteinUhlenbeck", "Overshoot", "Schedule", "Trace"]


class Schedule(Protocol):
    """Anything that says how strong the noise is at a step."""

    def __call__(self, step: int, batch: int) -> float | Tensor:
        """Amplitude at a step: a number, or (batch,) numbers."""


def _check(name: str, **values: float) -> None:
    for field, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name}: {field} must be a finite number of at least 0, not {value}")


@dataclass(frozen=True)
class Constant:
    """The same at every step.

    >>> Constant(0.5)(step=7, batch=32)
    0.5
    """

    std: float

    def __post_init__(self) -> None:
        _check("Constant", std=self.std)

    def __call__(self, step: int, batch: int) -> float:
        """Amplitude at a step."""
        return self.std


@dataclass(frozen=True)
class LinearRamp:
    """From 0 to `std` over `steps` steps, then constant.

    >>> [LinearRamp(1.0, steps=4)(step, 1) for step in (0, 2, 4, 9)]
    [0.0, 0.5, 1.0, 1.0]
    """

    std: float
    steps: int

    def __post_init__(self) -> None:
        _check("LinearRamp", std=self.std, steps=self.steps)

    def __call__(self, step: int, batch: int) -> float:
        """Amplitude at a step."""
        return self.std * (min(1.0, step / self.steps) if self.steps else 1.0)


@dataclass(frozen=True)
class Overshoot:
    """Up to `peak` times `std` in `up` steps, down to `std` in `down` steps, then constant.

    >>> [Overshoot(1.0, up=2, down=2)(step, 1) for step in (0, 2, 3, 4, 9)]
    [0.0, 1.5, 1.25, 1.0, 1.0]
    """

    std: float
    up: int
    down: int
    peak: float = 1.5

    def __post_init__(self) -> None:
        _check("Overshoot", std=self.std, up=self.up, down=self.down, peak=self.peak)

    def __call__(self, step: int, batch: int) -> float:
        """Amplitude at a step."""
        return float(np.interp(step, [0, self.up, self.up + self.down], [0.0, self.peak * self.std, self.std]))


@dataclass(frozen=True)
class HalfNormal:
    """``alpha * std + theta * |N(0, 1)|``, one draw a sample: variance-aware noisy training (VANT).

    The mean is ``alpha * std + 0.798 * theta``, with the defaults 0.85 of `std`: compare with constant noise of that
    strength too. "Variance-Aware Noisy Training: Hardening DNNs against Unstable Analog Computations", 2025.

    Args:
        std: nominal standard deviation.
        alpha: part of it that is always there.
        theta: spread; 0.5 times `std` when None.
        per: one draw a ``"sample"``, or one a ``"batch"``.
        warmup: steps before that in which the amplitude rises linearly from 0 to `std`.

    >>> HalfNormal(1.0, warmup=10)(step=5, batch=4), HalfNormal(1.0)(step=0, batch=4).shape
    (0.5, torch.Size([4]))
    """

    std: float
    alpha: float = 0.45
    theta: float | None = None
    per: Literal["sample", "batch"] = "sample"
    warmup: int = 0

    def __post_init__(self) -> None:
        theta = 0.0 if self.theta is None else self.theta
        _check("HalfNormal", std=self.std, alpha=self.alpha, theta=theta, warmup=self.warmup)
        if self.per not in ("sample", "batch"):
            raise ConfigError(f"HalfNormal: per must be 'sample' or 'batch', not {self.per!r}")

    @property
    def mean(self) -> float:
        """Expected amplitude after the warm-up."""
        return self.alpha * self.std + math.sqrt(2 / math.pi) * self._theta

    @property
    def _theta(self) -> float:
        return 0.5 * self.std if self.theta is None else self.theta

    def __call__(self, step: int, batch: int) -> float | Tensor:
        """Amplitude at a step."""
        if step < self.warmup:
            return self.std * step / self.warmup
        draws = torch.randn(batch if self.per == "sample" else 1).abs_().mul_(self._theta).add_(self.alpha * self.std)
        return draws if self.per == "sample" else draws[0].item()


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """A fluctuating environment: Gaussian with correlation ``exp(-steps / tau)``, cut off at 0. Synthetic.

    Args:
        mean: long-term mean.
        std: standard deviation of the fluctuation.
        tau: correlation time in steps.
        seed: of the path.
    """

    mean: float
    std: float
    tau: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check("OrnsteinUhlenbeck", mean=self.mean, std=self.std, tau=self.tau, seed=self.seed)
        if self.tau == 0:
            raise ConfigError("OrnsteinUhlenbeck: tau must be larger than 0")

    def __call__(self, step: int, batch: int) -> float:
        """Amplitude at a step."""
        length = 1 << max(10, step.bit_length())  # a longer path begins with the shorter one
        return max(0.0, self.mean + self.std * float(_unit_path(length, self.tau, self.seed)[step]))


@functools.lru_cache(maxsize=16)
def _unit_path(length: int, tau: float, seed: int) -> Any:
    """Stationary AR(1) path of mean 0 and variance 1."""
    from scipy.signal import lfilter  # scipy.signal takes half a second

    keep = math.exp(-1 / tau)
    shocks = np.random.default_rng(seed).standard_normal(length)
    shocks[1:] *= math.sqrt(1 - keep**2)
    return lfilter([1.0], [1.0, -keep], shocks)


@dataclass(frozen=True)
class Trace:
    """A measured course, linear between its points and constant outside.

    Args:
        times: strictly ascending, in steps.
        stds: amplitude at each of them.

    Raises:
        ConfigError: the two differ in length, times do not ascend, or a value is negative.

    >>> Trace((0, 10), (0.0, 1.0))(step=5, batch=1)
    0.5
    """

    times: tuple[float, ...]
    stds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.times) != len(self.stds) or not self.times:
            raise ConfigError(f"Trace: {len(self.times)} times but {len(self.stds)} standard deviations")
        if any(b <= a for a, b in zip(self.times, self.times[1:], strict=False)):
            raise ConfigError("Trace: times must ascend")
        for value in self.stds:
            _check("Trace", std=value)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a CSV file with a header line and two columns: time, standard deviation.

        Raises:
            ConfigError: the file is missing or a line holds something else.
        """
        try:
            with Path(path).open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if row][1:]
            pairs = [(float(time), float(std)) for time, std in rows]
        except (OSError, UnicodeDecodeError, ValueError) as e:
            raise ConfigError(f"{path} is no trace (a header line, then time,std a line): {e}") from e
        return cls(tuple(t for t, _ in pairs), tuple(s for _, s in pairs))

    def __call__(self, step: int, batch: int) -> float:
        """Amplitude at a step."""
        return float(np.interp(step, self.times, self.stds))
