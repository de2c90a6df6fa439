"""Numbers to intervals, chosen so that they tell the classes apart."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from netfit.errors import ConfigError

__all__ = ["MDLDiscretizer"]


class MDLDiscretizer(TransformerMixin, BaseEstimator):
    """Cut each feature into intervals as long as a cut pays for its own description.

    "Multi-Interval Discretization of Continuous-Valued Attributes for Classification Learning" (Fayyad and Irani,
    1993). A feature that does not help becomes one interval. NaN is a value of its own, after the last interval.

    Attributes:
        edges_: ascending cuts of each feature; a value is in interval k when k cuts are smaller than it.

    Example:
        >>> x = np.array([[0.1], [0.2], [0.3], [0.7], [0.8], [0.9]] * 4)
        >>> MDLDiscretizer().fit(x, x[:, 0] > 0.5).edges_[0].round(2).tolist()
        [0.5]
    """

    edges_: list[NDArray[np.float64]]

    def fit(self, X: Any, y: Any) -> Self:
        """Find the cuts.

        Args:
            X: numbers (n, features); NaN where a value is missing.
            y: classes (n,).

        Raises:
            ValueError: scikit-learn's checks of `X` and `y`.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        _, labels = np.unique(y, return_inverse=True)
        self.edges_ = [mdl_cuts(column, labels) for column in X.T]
        return self

    def transform(self, X: Any) -> NDArray[np.int64]:
        """Number of each value's interval, int64 (n, features).

        Raises:
            ValueError: another number of features, or infinite values.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        columns = [intervals(column, edges) for column, edges in zip(X.T, self.edges_, strict=True)]
        return np.stack(columns, axis=1)

    def __sklearn_tags__(self) -> Any:
        """Needs classes; takes missing values."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def intervals(column: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Interval of each number of one feature; NaN has the number after the last one."""
    return np.where(np.isnan(column), len(edges) + 1, np.searchsorted(edges, column, side="left"))


def quantile_cuts(column: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Cuts that leave about as many values in each of `bins` intervals.

    Raises:
        ConfigError: fewer than two intervals.
    """
    if bins < 2:
        raise ConfigError(f"n_bins={bins}: choose 'mdl' or 2 intervals and more")
    known = column[~np.isnan(column)]
    return np.unique(np.quantile(known, np.arange(1, bins) / bins)) if len(known) else np.empty(0)


def mdl_cuts(column: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cuts of one feature by the criterion of Fayyad and Irani.

    Args:
        column: float64 (n,), NaN where missing.
        labels: class numbers 0, 1, ... (n,).
    """
    known = ~np.isnan(column)
    values, place = np.unique(column[known], return_inverse=True)
    if len(values) < 2:
        return np.empty(0)
    counts = np.zeros((len(values), int(labels.max()) + 1))
    np.add.at(counts, (place, labels[known]), 1)
    found: list[float] = []
    open_parts = [(0, len(values))]
    while open_parts:
        first, last = open_parts.pop()
        cut = _best_cut(counts[first:last])
        if cut is not None:
            middle = first + cut
            found.append((values[middle - 1] + values[middle]) / 2)
            open_parts += [(first, middle), (middle, last)]
    return np.unique(found)


def _best_cut(counts: NDArray[np.float64]) -> int | None:
    """Where to cut rows of class counts (values ascending), or None when no cut pays."""
    if len(counts) < 2:
        return None
    left = counts.cumsum(axis=0)
    whole, left = left[-1], left[:-1]
    right, n = whole - left, whole.sum()
    e_left, e_right = _entropy(left), _entropy(right)
    share = left.sum(axis=1) / n
    after = share * e_left + (1 - share) * e_right
    best = int(after.argmin())
    e_whole = float(_entropy(whole))
    k, k1, k2 = (np.count_nonzero(part) for part in (whole, left[best], right[best]))
    # log2(3^k - 2), also where 3^k overflows
    price = k * np.log2(3) + np.log2(1 - 2 * 3.0**-k) - (k * e_whole - k1 * e_left[best] - k2 * e_right[best])
    return best + 1 if e_whole - after[best] > (np.log2(n - 1) + price) / n else None


def _entropy(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in bits of the last axis."""
    share = counts / counts.sum(axis=-1, keepdims=True)
    bits: NDArray[np.float64] = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=-1)
    return bits
