"""Prediction intervals from residuals of held-out rows, apart for short and long kernels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "calibrate", "folds"]

FloatArray = NDArray[np.float64]

_LEVELS = np.linspace(0.005, 0.995, 199)
_BINS, _ROWS = 6, 150  # at most so many bins, with at least so many rows in each
FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """Quantiles of the logarithm of measured over predicted.

    Attributes:
        edges: between the bins of the base (log seconds of the bound, or log instructions).
        quantiles: one list per bin, at ``_LEVELS``.
    """

    edges: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]

    def __call__(self, key: FloatArray, coverage: float) -> tuple[FloatArray, FloatArray]:
        """Lower and upper residual of each row."""
        at = np.searchsorted(np.asarray(self.edges), key)
        ends = [np.array([np.interp(q, _LEVELS, row) for row in self.quantiles])[at] for q in _tails(coverage)]
        return ends[0], ends[1]

    @property
    def usual(self) -> float:
        """90th percentile of the absolute residuals, bins together."""
        return float(np.quantile(np.abs(np.asarray(self.quantiles)), 0.9))


def _tails(coverage: float) -> tuple[float, float]:
    return (1 - coverage) / 2, (1 + coverage) / 2


def calibrate(key: FloatArray, residual: FloatArray) -> Calibration:
    """Quantiles in bins of ``key`` with equally many rows."""
    bins = max(1, min(_BINS, len(key) // _ROWS))
    edges = np.unique(np.quantile(key, np.arange(1, bins) / bins))
    at = np.searchsorted(edges, key)
    rows = (residual[at == i] if (at == i).any() else residual for i in range(len(edges) + 1))
    return Calibration(tuple(edges.tolist()), tuple(tuple(np.quantile(r, _LEVELS).tolist()) for r in rows))


def folds(n: int, groups: Any, seed: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to train on and rows to hold out; whole groups are held out where there are any."""
    from sklearn.model_selection import GroupKFold, KFold

    different = 0 if groups is None else len(np.unique(groups))
    if different > 1:
        yield from GroupKFold(min(FOLDS, different)).split(np.zeros((n, 1)), groups=groups)
    else:
        yield from KFold(min(FOLDS, n), shuffle=True, random_state=seed).split(np.zeros((n, 1)))
