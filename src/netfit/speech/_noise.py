"""Noises made from nothing but a seed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["SYNTHETIC"]

Array = NDArray[np.float64]


def _coloured(exponent: float) -> Callable[[int, int, np.random.Generator], Array]:
    def make(n: int, fs: int, rng: np.random.Generator) -> Array:
        k = np.maximum(np.fft.rfftfreq(n, 1 / fs), 20.0)
        noise = rng.standard_normal(len(k)) + 1j * rng.standard_normal(len(k))
        return _unit(np.fft.irfft(noise * k ** (-exponent / 2), n=n))

    return make


def _hum(n: int, fs: int, rng: np.random.Generator) -> Array:
    """A motor: harmonics of a slowly drifting pitch over coloured noise."""
    pitch = rng.uniform(60, 220) * (1 + 0.05 * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * np.arange(n) / fs))
    phase = 2 * np.pi * np.cumsum(pitch) / fs
    orders = np.arange(1, 25)
    gains = rng.uniform(0.2, 1, len(orders)) / orders ** rng.uniform(0.3, 1)
    tone = sum(g * np.sin(k * phase + rng.uniform(0, 6.28)) for g, k in zip(gains, orders, strict=True))
    return _unit(_unit(np.asarray(tone)) + rng.uniform(0.3, 1) * _coloured(rng.uniform(0, 2))(n, fs, rng))


def _clatter(n: int, fs: int, rng: np.random.Generator) -> Array:
    """Dishes: short decaying resonances at random times over a little noise."""
    out = 0.02 * _coloured(1)(n, fs, rng)
    for _ in range(max(1, int(rng.uniform(2, 10) * n / fs))):
        at, length = int(rng.integers(n)), int(rng.uniform(0.02, 0.25) * fs)
        t = np.arange(min(length, n - at)) / fs
        modes = rng.uniform(300, 7000, 5)
        ring = sum(np.sin(2 * np.pi * f * t + rng.uniform(0, 6.28)) for f in modes)
        out[at : at + len(t)] += rng.lognormal(0, 0.7) * ring * np.exp(-t * rng.uniform(10, 80))
    return _unit(out)


def _wind(n: int, fs: int, rng: np.random.Generator) -> Array:
    """Noise whose loudness and colour come and go."""
    knots = rng.uniform(0.1, 1, 2 + int(2 * n / fs))
    swell = np.interp(np.arange(n), np.linspace(0, n, len(knots)), knots)
    return _unit(swell * _coloured(2)(n, fs, rng) + swell[::-1] * 0.5 * _coloured(0.5)(n, fs, rng))


def _unit(x: Array) -> Array:
    """Mean power one."""
    return x / max(float(np.sqrt(np.mean(x**2))), 1e-12)


SYNTHETIC: dict[str, Callable[[int, int, np.random.Generator], Array]] = {
    "white": _coloured(0),
    "pink": _coloured(1),
    "brown": _coloured(2),
    "hum": _hum,
    "clatter": _clatter,
    "wind": _wind,
}
