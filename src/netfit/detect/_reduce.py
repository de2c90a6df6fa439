"""From any number of channels to a few numbers a group."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, did_you_mean
from netfit.kernels.peers import PeerRows

__all__ = ["GroupReducer", "Held"]

_STATS = ("count", "median", "std")


@dataclass(frozen=True)
class GroupReducer:
    """What the temporal stage sees of each group, whatever its channels are at the moment.

    Args:
        stats: of ``"median"``, ``"std"`` (population) and ``"count"`` (channels present).
        fill: value of a group that is absent: ``"hold"`` keeps its last one. Either way the temporal stage is told, and
            an absent group adds nothing to a score.

    Raises:
        ConfigError: an unknown statistic, none, or one twice; or a fill that is no number.
    """

    stats: tuple[str, ...] = ("median", "std")
    fill: float | Literal["hold"] = "hold"

    def __post_init__(self) -> None:
        for name in self.stats:
            if name not in _STATS:
                raise ConfigError(f"unknown statistic {name!r}; {did_you_mean(name, _STATS)}")
        if not self.stats or len(set(self.stats)) != len(self.stats):
            raise ConfigError(f"stats={self.stats!r}: name each once, and at least one")
        if self.fill != "hold" and not (isinstance(self.fill, int | float) and math.isfinite(self.fill)):
            raise ConfigError(f"fill={self.fill!r}: give a number, or 'hold' for the last value")

    def names(self, groups: list[str]) -> list[str]:
        """Names of the columns of `reduce`: ``"group:median"``."""
        return [f"{group}:{stat}" for group in groups for stat in self.stats]

    def reduce(self, rows: PeerRows) -> NDArray[np.float64]:
        """Statistics of each group side by side, (rows, groups * stats); NaN where a group is absent."""
        absent = rows.count == 0
        parts = [np.where(absent, np.nan, getattr(rows, stat)) for stat in self.stats]
        return np.stack(parts, axis=2).reshape(len(absent), -1)


class Held:
    """The last value of each column stands in for a missing one; 0 before the first.

    Args:
        fill: ``"hold"``, or a number that stands in instead.
    """

    def __init__(self, fill: float | Literal["hold"]) -> None:
        self._fill = fill
        self.last = np.empty(0)

    def widen(self, columns: int) -> None:
        """Make room for columns that are new at the end."""
        self.last = np.concatenate([self.last, np.zeros(columns - len(self.last))])

    def fill(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rows (n, columns) without NaN."""
        there = np.isfinite(values)
        if there.all():
            out = values
        elif self._fill != "hold":
            out = np.where(there, values, self._fill)
        else:
            stacked = np.concatenate([self.last[None], np.where(there, values, 0.0)])
            row = np.where(np.concatenate([np.ones_like(there[:1]), there]), np.arange(len(stacked))[:, None], 0)
            newest = np.maximum.accumulate(row, axis=0)
            out = np.take_along_axis(stacked, newest, axis=0)[1:]
        if len(out):
            self.last = out[-1].copy()
        return out
