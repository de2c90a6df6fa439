"""A guess at what a candidate costs, learnt from everything measured so far.

Sums of isolated layer times miss how runtimes fuse and convert (52 % off for OpenVINO); a ridge regression on counts
of the whole network was off by 5 to 8 % after 30 measurements, for nothing. The guess never replaces a measurement: it
only keeps hopeless candidates from being measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.search import Row

from ._space import Candidate, SearchSpace
from ._work import Work

__all__ = ["Guess", "Predictor", "quality"]

LEAST = 12  # measurements before a guess is made
ROW, LANES = 4, 16  # channels that int8 dot products and vectors take at a time
SAFE = 3.0  # standard deviations of the leave-one-out error that a candidate is given the benefit of
ALPHAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class Guess:
    """A predicted cost ratio.

    Attributes:
        ratio: most likely value.
        least: the candidate is hardly cheaper than this.
    """

    ratio: float
    least: float


class Predictor:
    """Ridge regression from what a candidate computes to its measured cost ratio.

    Features: multiply-accumulates of each precision, the same with channels rounded up to what the hardware takes
    at a time, results written, channel counts that fill no vector, and elements that pass between two precisions.

    Args:
        space: what a candidate chooses from.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space, self._work = space, Work(space)
        self._precisions = sorted({p for offered in space.precisions.values() for p in offered})
        self._results = [
            sum(op.outputs[0].numel for op in space.workload if op.name == layer.name) for layer in self._work.layers
        ]

    def guess(self, candidate: Candidate, rows: Sequence[Row]) -> Guess | None:
        """Predict a candidate's cost from the measured trials; None while there are too few.

        Args:
            candidate: what may be measured next.
            rows: trials that hold a measured ``cost``.
        """
        if len(rows) < LEAST:
            return None
        from sklearn.linear_model import RidgeCV

        seen = np.array([self._features(self._space.candidate(r.params)) for r in rows])
        ratios = np.array([float(r.attrs["cost"]["ratio"]) for r in rows])
        # Rows divided by their ratio: an error of a percent counts the same at every speed.
        model = RidgeCV(ALPHAS, fit_intercept=False).fit(seen / ratios[:, None], np.ones(len(rows)))
        ratio = max(float(self._features(candidate) @ model.coef_), float(ratios.min()) / 2)
        error = float(np.sqrt(-model.best_score_))  # leave one out
        return Guess(ratio, ratio / (1 + SAFE * error))

    def _features(self, candidate: Candidate) -> NDArray[np.float64]:
        """Shares of the uncompressed network's work, and a constant."""
        sizes = self._work.sizes(candidate)
        work, filled = (dict.fromkeys(self._precisions, 0.0) for _ in range(2))
        results = unaligned = passed = 0.0
        before = None
        for op, macs, (out, inner), full, written in zip(
            self._work.layers, self._work.macs(sizes), sizes, self._work.full, self._results, strict=True
        ):
            precision, kept = candidate.precision[op.name], written * out / full[0]
            work[precision] += macs
            filled[precision] += macs * (ceil(inner / ROW) * ROW / inner) * (ceil(out / LANES) * LANES / out)
            results += kept
            unaligned += out % LANES != 0
            passed += kept if before not in (None, precision) else 0.0
            before = precision
        macs, layers = sum(self._work.macs(self._work.full)), len(sizes)
        computed = [value / macs for value in (*work.values(), *filled.values())]
        return np.array([*computed, results / sum(self._results), passed / sum(self._results), unaligned / layers, 1.0])


def quality(rows: Sequence[Row], skipped: int) -> dict[str, Any]:
    """How good the guesses were that were made before the measurement, and how many measurements they saved."""
    pairs = np.array([(r.attrs["guess"], r.attrs["cost"]["ratio"]) for r in rows if r.attrs.get("guess") is not None])
    found: dict[str, Any] = {"skipped": skipped, "guessed": len(pairs), "mape": None, "spearman": None}
    if len(pairs) >= 3:
        guessed, measured = pairs.T
        first, second = (np.argsort(np.argsort(column)) for column in (guessed, measured))
        found["mape"] = float(np.mean(np.abs(guessed / measured - 1)))
        found["spearman"] = float(np.corrcoef(first, second)[0, 1])
    return found
