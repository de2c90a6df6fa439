"""The seven kinds of anomalies of the DeepHYDRA paper's generator, put into a table that has none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netfit.detect._frame import Frame, unchecked
from netfit.detect._layout import Layout
from netfit.errors import ConfigError, did_you_mean
from netfit.seeding import derive

__all__ = ["CATEGORIES", "Injected", "inject"]

# Bit of each category in a label, as in the paper's data.
CATEGORIES = {
    "point-global": 1, "point-contextual": 2, "persistent-global": 4, "persistent-contextual": 8,
    "collective-global": 16, "collective-trend": 32, "intra-group": 64,
}  # fmt: skip
_FACTOR, _GROUPS_HIT, _MEMBERS_HIT = 0.5, 3, 0.05
_POINTS, _OTHERS = 0.001, 0.005  # share of the rows
_Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Injected:
    """A table with anomalies.

    Args:
        frame: rows.
        mask: bits of `CATEGORIES` of each row, int64 (n,).
        channels: 1 where a channel was touched, uint8 (n, channels).
    """

    frame: Frame
    mask: NDArray[np.int64]
    channels: NDArray[np.uint8]


def inject(
    frame: Frame, group_by: object, *, categories: Sequence[str] = tuple(CATEGORIES), ratio: float = 1.0, seed: int = 0
) -> Injected:
    """Put anomalies into a table.

    All categories but the last hit every channel of up to three groups: single rows (factor 0.5 of the local
    deviation beyond the range, or inside it), windows of 16 to 256 rows (a Brownian bridge beyond or inside the range;
    square-like waves; a slope of half a deviation a row). ``"intra-group"`` hits 5 % of the channels of one group for
    about ten rows, set to 0 or scaled by 0.5 or 1.5.

    Args:
        frame: rows without anomalies.
        group_by: as in `HybridDetector`.
        categories: of `CATEGORIES`.
        ratio: times the paper's share of rows (0.001 for points and within groups, 0.005 else); each category appears
            at least once.
        seed: of everything drawn.

    Raises:
        ConfigError: an unknown category, fewer than 300 rows, or a ratio that is not positive.
    """
    for name in categories:
        if name not in CATEGORIES:
            raise ConfigError(f"unknown category {name!r}; {did_you_mean(name, CATEGORIES)}")
    if len(frame) < 300 or not ratio > 0:
        raise ConfigError(f"{len(frame)} rows, ratio={ratio}: give at least 300 rows and a positive ratio")
    layout = Layout(group_by)  # type: ignore[arg-type]
    layout.use(frame.columns, lambda: np.zeros(len(layout), bool))
    members = [layout.source[a:b] for a, b in zip(layout.offset[:-1], layout.offset[1:], strict=True)]
    values, mask = frame.values.copy(), np.zeros(len(frame), np.int64)
    touched = np.zeros(values.shape, np.uint8)
    for name in categories:
        draw = np.random.default_rng(derive(seed, name))
        rare = name.startswith("point") or name == "intra-group"
        left = max(1, round(ratio * (_POINTS if rare else _OTHERS) * len(frame)))
        while left > 0:
            length = _length(name, draw, len(frame), left)
            at = _free(draw, mask, length)
            if at is None:
                break
            rows = slice(at, at + length)
            for columns in _victims(name, draw, members):
                values[rows, columns] = _APPLY[name](draw, values[:, columns], at, length)
                touched[rows, columns] = 1
            mask[rows] |= CATEGORIES[name]
            left -= length
    return Injected(unchecked(frame.times, frame.columns, values), mask, touched)


def _length(name: str, draw: np.random.Generator, rows: int, left: int) -> int:
    if name.startswith("point"):
        return 1
    if name == "intra-group":
        return max(4, round(draw.normal(10, 1)))
    return min(int(draw.integers(16, 257)), max(16, left), rows // 8)


def _free(draw: np.random.Generator, mask: NDArray[np.int64], length: int) -> int | None:
    """A first row of a stretch that is free, with some rows around it."""
    for _ in range(200):
        at = int(draw.integers(len(mask) // 20 + 1, len(mask) - length - 1))
        if not mask[max(0, at - 20) : at + length + 20].any():
            return at
    return None


def _victims(name: str, draw: np.random.Generator, members: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    if name == "intra-group":
        large = [m for m in members if len(m) == max(map(len, members))]
        group = large[int(draw.integers(len(large)))]
        return [draw.choice(group, max(1, round(_MEMBERS_HIT * len(group))), replace=False)]
    hit = draw.choice(len(members), min(_GROUPS_HIT, max(1, len(members) // 2)), replace=False)
    return [members[i] for i in hit]


def _spread(x: _Values) -> _Values:
    """Deviation of each channel; of its level where it never moves."""
    spread = np.nanstd(x, axis=0)
    return np.where(spread > 0, spread, 0.1 * np.abs(np.nanmean(x, axis=0)) + 1e-9)


def _local(x: _Values, at: int, length: int) -> _Values:
    return x[max(0, at - 50) : at + length + 50]


def _point_global(draw: np.random.Generator, x: _Values, at: int, length: int) -> _Values:
    sign = draw.choice([-1.0, 1.0])
    edge = np.nanmax(x, axis=0) if sign > 0 else np.nanmin(x, axis=0)
    return np.asarray(edge + sign * _FACTOR * (1 + draw.random()) * _spread(x))[None]


def _point_contextual(draw: np.random.Generator, x: _Values, at: int, length: int) -> _Values:
    sign = draw.choice([-1.0, 1.0])
    moved = x[at] + sign * (2 + draw.random()) * _spread(_local(x, at, length))
    return np.clip(moved, np.nanmin(x, axis=0), np.nanmax(x, axis=0))[None]


def _bridge(draw: np.random.Generator, length: int) -> _Values:
    walk = np.cumsum(draw.normal(size=length))
    return np.asarray(np.abs(walk - np.linspace(0, 1, length) * walk[-1]) / np.sqrt(length))[:, None]


def _persistent_global(draw: np.random.Generator, x: _Values, at: int, length: int) -> _Values:
    lifted = np.maximum(x[at : at + length], np.nanmax(x, axis=0))
    return np.asarray(lifted + _bridge(draw, length) * _FACTOR * _spread(_local(x, at, length)))


def _persistent_contextual(draw: np.random.Generator, x: _Values, at: int, length: int) -> _Values:
    moved = x[at : at + length] + (1 + _bridge(draw, length)) * 4 * _FACTOR * _spread(_local(x, at, length))
    low, high = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
    return np.asarray(np.where(moved > high, np.maximum(2 * high - moved, low), moved))


def _collective_global(draw: np.random.Generator, x: _Values, at: int, length: int) -> _Values:
    odd = 2 * np.arange(10) + 1
    phase = 2 * np.pi * 0.1 * np.arange(length)[:, None] * odd
    wave = (np.sin(phase) / odd).sum(1) + draw.normal(0, 0.05, length)
    return np.asarray(np.nanmean(_local(x, at, length), axis=0) + 5 * _FACTOR * wave[:, None] * _spread(x))


def _collective_trend(draw: np.random.Generator, x: _Values, at: int, length: int) -> _Values:
    slope = draw.choice([-1.0, 1.0]) * _FACTOR * _spread(_local(x, at, length))
    return np.asarray(x[at : at + length] + slope * np.arange(1, length + 1)[:, None])


def _intra_group(draw: np.random.Generator, x: _Values, at: int, length: int) -> _Values:
    return np.asarray(x[at : at + length] * draw.choice([0.0, 0.5, 1.5]))


_APPLY: dict[str, Callable[[np.random.Generator, _Values, int, int], _Values]] = {
    "point-global": _point_global,
    "point-contextual": _point_contextual,
    "persistent-global": _persistent_global,
    "persistent-contextual": _persistent_contextual,
    "collective-global": _collective_global,
    "collective-trend": _collective_trend,
    "intra-group": _intra_group,
}
