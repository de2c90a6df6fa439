"""The first configurations to measure: valid ones, spread over the clusters that valid points form.

Source: "HW-Aware Initialization of DNN Auto-Tuning to Improve Exploration Time and Robustness" (2022).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .._space import Config, Space

__all__ = ["spread"]

_LARGE = 0.05  # share of the valid points that makes a cluster large


def spread(
    space: Space, pool: Sequence[Config], count: int, rng: np.random.Generator, use_estimate: bool = True
) -> list[Config]:
    """Valid configurations far from each other, one of every large cluster among them.

    Half of them are those that the space's estimate ranks first, where it has one; the rest is chosen by the largest
    distance to all chosen ones, in logarithms of knobs and hardware features.

    Args:
        space: where the pool is from.
        pool: valid configurations.
        count: how many to choose.
        rng: breaks ties.
        use_estimate: let the estimate choose its half.
    """
    if count >= len(pool):
        return [pool[i] for i in rng.permutation(len(pool))]
    chosen: list[int] = []
    if use_estimate and space.estimate is not None:
        chosen = list(np.argsort(space.estimate(pool), kind="stable")[: count // 2])
    points = space.features(pool)
    deviation = points.std(0)
    points = points[:, deviation > 0] / deviation[deviation > 0]
    clusters = space.components(pool)
    labels, sizes = np.unique(clusters, return_counts=True)
    wanted = [label for label, size in zip(labels, sizes, strict=True) if size >= _LARGE * len(pool)]
    for label in wanted:
        members = np.flatnonzero(clusters == label)
        if len(chosen) < count and not np.isin(chosen, members).any():
            chosen.append(int(rng.choice(members)))
    if not chosen:
        chosen.append(int(rng.integers(len(pool))))
    nearest = np.min([_distance(points, points[i]) for i in chosen], axis=0)
    while len(chosen) < count:
        far = int(np.argmax(nearest))
        chosen.append(far)
        nearest = np.minimum(nearest, _distance(points, points[far]))
    return [pool[i] for i in chosen]


def _distance(points: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(((points - point) ** 2).sum(1))
