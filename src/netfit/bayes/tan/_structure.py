"""Which feature depends on which: naive, a Chow-Liu tree, or candidates for a structure to be learned."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

__all__ = ["candidates", "chow_liu"]

_MOST_VALUES = 8192  # of all features together: their joint counts are a square of this size
_BLOCK = 4096  # rows of one matrix product


def mutual_information(
    codes: NDArray[np.int64], labels: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """I(x_i; x_j | class) in nats for all pairs of features, from counts.

    Args:
        codes: value numbers (n, features).
        labels: class numbers (n,).
        sizes: values of each feature.

    Raises:
        ConfigError: the features have too many values together.
    """
    total = int(sizes.sum())
    if total > _MOST_VALUES:
        raise ConfigError(
            f"the features have {total} values together: a tree is found among at most {_MOST_VALUES}; "
            "use fewer intervals (n_bins, MDLDiscretizer) or structure='naive'"
        )
    first = np.concatenate([[0], sizes.cumsum()[:-1]])
    found = np.zeros((len(sizes), len(sizes)))
    for label in np.unique(labels):
        joint = _joint(codes[labels == label] + first, total)
        single = joint.diagonal()
        n = single[: sizes[0]].sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = joint * np.log(joint * n / np.outer(single, single))
        terms[joint == 0] = 0
        found += np.add.reduceat(np.add.reduceat(terms, first, axis=0), first, axis=1)
    np.fill_diagonal(found, 0)
    return np.maximum(found, 0) / len(labels)


def _joint(places: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """How often any two values occur together; float32 products count exactly up to 2^24, and blocks are smaller."""
    joint = np.zeros((total, total))
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        present = np.zeros((len(block), total), np.float32)
        np.put_along_axis(present, block, 1, axis=1)
        joint += present.T @ present
    return joint


def chow_liu(
    codes: NDArray[np.int64], labels: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tree of greatest conditional mutual information, and its features from the root outwards.

    "Bayesian Network Classifiers" (Friedman, Geiger and Goldszmidt, 1997).

    Returns:
        Parent of each feature (-1: the class alone), and the features in breadth-first order.
    """
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    if len(sizes) == 1:
        return np.array([-1]), np.array([0])
    information = mutual_information(codes, labels, sizes)
    # The library takes 0 for "no edge" and looks for the least sum.
    tree = minimum_spanning_tree(1 + information.max() - information)
    order, parents = breadth_first_order(tree, 0, directed=False)
    return np.where(parents < 0, -1, parents).astype(np.int64), cast("NDArray[np.int64]", order.astype(np.int64))


def candidates(
    codes: NDArray[np.int64], labels: NDArray[np.int64], sizes: NDArray[np.int64], most: int
) -> list[tuple[int, ...]]:
    """Parents each feature may take in a learned structure: none, or one of the `most` best before it.

    Features are ordered as in the Chow-Liu tree, so that the tree itself is among the choices and any choice is free
    of cycles. The published code draws the predecessors at random in column order; taking those of greatest
    conditional mutual information needs no luck.
    """
    _, order = chow_liu(codes, labels, sizes)
    information = mutual_information(codes, labels, sizes)
    found: list[tuple[int, ...]] = [(-1,)] * len(sizes)
    for place, feature in enumerate(order):
        before = order[:place]
        best = before[np.argsort(-information[feature, before], kind="stable")[:most]]
        found[feature] = (-1, *(int(p) for p in best))
    return found
