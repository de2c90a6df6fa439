"""Which points no other point beats."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError

__all__ = ["pareto_mask"]


def pareto_mask(values: ArrayLike, maximize: bool | Sequence[bool] = False) -> NDArray[np.bool_]:
    """Mark the rows that no other row dominates.

    A row dominates another when it is at least as good in every objective and better in one. Equal rows do not
    dominate each other; a row with a NaN is never marked. Takes O(n log n) time for one or two objectives, O(n f) for
    more, where f is the size of the front.

    Args:
        values: (points, objectives), real.
        maximize: for every objective, or one for all, whether larger is better.

    Returns:
        (points,) boolean.

    Raises:
        ConfigError: the values are no table, or ``maximize`` has another length than a row.

    >>> pareto_mask([[1, 5], [2, 3], [3, 4], [1, 5]]).tolist()
    [True, True, False, True]
    """
    cost = np.array(values, dtype=np.float64)
    if cost.ndim != 2 or cost.shape[1] == 0:
        raise ConfigError(f"pareto_mask needs values of shape (points, objectives), not {cost.shape}")
    flip = [maximize] * cost.shape[1] if isinstance(maximize, bool) else list(maximize)
    if len(flip) != cost.shape[1]:
        raise ConfigError(f"maximize has {len(flip)} entries for {cost.shape[1]} objectives")
    cost[:, flip] *= -1
    mask = np.asarray(~np.isnan(cost).any(axis=1), dtype=np.bool_)
    # Sorted by the first objective, then the next: a row can only be dominated by an earlier one.
    rows, back = np.unique(cost[mask] + 0.0, axis=0, return_inverse=True)  # + 0.0 makes one zero of -0 and 0
    mask[mask] = (_front_2d(rows) if rows.shape[1] <= 2 else _front(rows))[back.reshape(-1)]
    return mask


def _front_2d(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    if rows.shape[1] == 1:
        return np.arange(len(rows)) == 0
    second = rows[:, 1]
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], second[:-1]]))
    return (second < best_before) | (np.arange(len(rows)) == 0)


def _front(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    left = np.arange(len(rows))
    mask = np.zeros(len(rows), dtype=bool)
    while len(left):
        first, left = left[0], left[1:]
        mask[first] = True  # dominated by none: whatever an earlier row dominates is gone already
        left = left[(rows[left] < rows[first]).any(axis=1)]
    return mask
