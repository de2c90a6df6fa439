"""The tables of a Bayesian-network classifier as one matrix, so that a prediction is one look-up call.

Feature i with parent p has a row for each pair of values (x_p, x_i): log p(x_i | x_p, class) for all classes. A layout
may hold several candidate parents of a feature; with one each it is a classifier.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Layout", "layout"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each table begins.

    Args:
        sizes: values of each feature.
        feature: of each table, (tables,).
        parent: of each table, -1 for none, (tables,).
        first: first row of each table, (tables + 1,); the last entry is the number of rows.
    """

    sizes: NDArray[np.int64]
    feature: NDArray[np.int64]
    parent: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return int(self.first[-1])

    @property
    def groups(self) -> NDArray[np.int64]:
        """Values of the feature for each (table, parent value): the rows that sum to one, in order."""
        times = np.where(self.parent < 0, 1, self.sizes[self.parent])
        return np.repeat(self.sizes[self.feature], times)

    def places(self, codes: NDArray[np.int64]) -> Tensor:
        """Row of each table for each sample, int64 (n, tables); an unknown value (-1) leads to row `rows`."""
        value = codes[:, self.feature]
        above = np.where(self.parent < 0, 0, codes[:, self.parent])
        row = self.first[:-1] + above * self.sizes[self.feature] + value
        return torch.from_numpy(np.where((value < 0) | (above < 0), self.rows, row))

    def counts(self, codes: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
        """How often each row and class occur together, (rows, classes)."""
        found = np.zeros(self.rows * classes)
        for one in range(len(self.feature)):
            part = Layout(self.sizes, self.feature[[one]], self.parent[[one]], self.first[[one, one + 1]])
            row = cast("NDArray[np.int64]", part.places(codes).numpy()[:, 0])
            found += np.bincount(row * classes + labels, minlength=self.rows * classes)
        return found.reshape(self.rows, classes)

    def smoothed(self, counts: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
        """Log-probabilities from counts with `alpha` added to each."""
        starts = np.concatenate([[0], self.groups.cumsum()[:-1]])
        total = np.repeat(np.add.reduceat(counts + alpha, starts, axis=0), self.groups, axis=0)
        return np.log(counts + alpha) - np.log(total)


def layout(sizes: NDArray[np.int64], parents: list[tuple[int, ...]]) -> Layout:
    """Tables for these candidate parents of each feature."""
    feature = np.array([i for i, chosen in enumerate(parents) for _ in chosen], dtype=np.int64)
    parent = np.array([p for chosen in parents for p in chosen], dtype=np.int64)
    rows = sizes[feature] * np.where(parent < 0, 1, sizes[parent])
    return Layout(sizes, feature, parent, np.concatenate([[0], rows.cumsum()]))


def log_joint(places: Tensor, table: Tensor, prior: Tensor, weights: Tensor | None = None) -> Tensor:
    """log p(class, x), (n, classes).

    Args:
        places: rows of `Layout.places`, (n, tables).
        table: log-probabilities, (rows, classes); a row of zeros is added for unknown values, which say nothing.
        prior: log p(class), (classes,).
        weights: how much each table counts, (tables,).
    """
    padded = torch.cat([table, table.new_zeros(1, table.shape[1])])
    weight = None if weights is None else weights.expand_as(places)
    return prior + torch.nn.functional.embedding_bag(places, padded, mode="sum", per_sample_weights=weight)
