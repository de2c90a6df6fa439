"""Impulse responses of a rectangular room from image sources, in numpy."""

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

__all__ = ["SPEED_OF_SOUND", "impulse_responses"]

Array = NDArray[np.float64]

SPEED_OF_SOUND = 343.0  # m/s
_OVERSAMPLING = 8  # delays are split between bins of 1/8 sample, then low-passed: error below -40 dB up to 7 kHz


def impulse_responses(size: Array, rt60: float, source: Array, mics: Array, fs: int) -> Array:
    """Impulse responses from one source to every microphone.

    "Image Method for Efficiently Simulating Small-Room Acoustics", Allen and Berkley, 1979; walls absorb alike, by
    Eyring's formula.

    Args:
        size: of the room in m, (3,).
        rt60: seconds until the sound has lost 60 dB.
        source: position in m, (3,), inside the room.
        mics: positions in m, (M, 3), inside the room.
        fs: samples a second.

    Returns:
        (M, n): rt60 long and a little more.

    Raises:
        ConfigError: a position outside the room, or a time that walls of this size cannot have.
    """
    size, source, mics = np.asarray(size, float), np.asarray(source, float), np.atleast_2d(np.asarray(mics, float))
    for what, points in (("source", source[None]), ("microphone", mics)):
        if not ((points > 0) & (points < size)).all():
            raise ConfigError(f"a {what} at {points.round(2).tolist()} m is outside the room of {size.tolist()} m")
    beta = _reflection(size, rt60)
    reach = SPEED_OF_SOUND * rt60
    offsets, bounces = _images(size, source, reach)
    n = int(rt60 * fs)
    fine = np.zeros((len(mics), (n + 64) * _OVERSAMPLING))
    for m, mic in enumerate(mics):
        distance = np.sqrt(((offsets - mic) ** 2).sum(1))
        delay = distance / SPEED_OF_SOUND * fs * _OVERSAMPLING
        inside = delay < n * _OVERSAMPLING
        gain = beta ** bounces[inside] / (4 * np.pi * np.maximum(distance[inside], 0.01))
        first = delay[inside].astype(np.int64)
        part = delay[inside] - first
        for shift, weight in ((0, 1 - part), (1, part)):
            fine[m] += np.bincount(first + shift, gain * weight, fine.shape[1])
    return _decimate(fine)


def _reflection(size: Array, rt60: float) -> float:
    """Reflection coefficient of all walls."""
    volume = float(size.prod())
    surface = 2 * float(size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    if rt60 <= 0:
        raise ConfigError(f"rt60={rt60} must be positive seconds")
    absorbed = 1 - np.exp(-24 * np.log(10) * volume / (SPEED_OF_SOUND * surface * rt60))
    if absorbed > 0.99:
        raise ConfigError(f"rt60={rt60} s cannot be had in a room of {size.tolist()} m: walls would absorb everything")
    return float(np.sqrt(1 - absorbed))


def _images(size: Array, source: Array, reach: float) -> tuple[Array, NDArray[np.int64]]:
    """Positions of all image sources within reach, and how many walls each has met."""
    axes = []
    for length, x in zip(size, source, strict=True):
        order = int(reach / (2 * length)) + 1
        k = np.arange(-order, order + 1)
        places = np.concatenate([2 * k * length + x, 2 * k * length - x])
        walls = np.concatenate([2 * np.abs(k), np.abs(2 * k - 1)])
        near = np.abs(places - x) <= reach
        axes.append((places[near], walls[near]))
    (x, a), (y, b), (z, c) = axes
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), -1).reshape(-1, 3)
    bounces = (a[:, None, None] + b[None, :, None] + c[None, None, :]).reshape(-1)
    near = ((grid - source) ** 2).sum(1) <= reach**2
    return grid[near], bounces[near]


def _decimate(fine: Array) -> Array:
    """Low-pass and keep every eighth value; also takes out what lies below 50 Hz, which image sources exaggerate."""
    n = fine.shape[1] // _OVERSAMPLING
    spectrum = np.fft.rfft(fine, axis=1)[:, : n // 2 + 1]
    k = np.arange(spectrum.shape[1])
    upper = np.clip((1 - k / k[-1]) / 0.04, 0, 1)  # the last 4 % of the band fade out
    lower = 1 - np.exp(-((k / (k[-1] * 0.00625)) ** 2))
    return np.fft.irfft(spectrum * upper * lower, n=n, axis=1)
