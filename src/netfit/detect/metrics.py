"""How good scores are, without point adjustment.

Higher scores mean worse. Point adjustment marks a whole true segment as found after one hit in it; random scores then
look excellent ("Towards a Rigorous Evaluation of Time-Series Anomaly Detection", Kim et al., 2022). It is here under
its own name, on request, and never without what random scores reach in the same way.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netfit.errors import ConfigError
from netfit.seeding import derive

__all__ = [
    "Adjusted",
    "alarm_rate",
    "auroc",
    "average_precision",
    "detection_delay",
    "event_recall",
    "hit_rate_at",
    "point_adjusted_f1",
    "segments",
    "summary",
    "vus_pr",
]


class Adjusted(NamedTuple):
    """Best point-adjusted F1 of the scores, and of random scores: only the difference says anything."""

    f1: float
    random_f1: float


def segments(labels: ArrayLike) -> list[tuple[int, int]]:
    """Runs of ones as (first, behind the last).

    >>> segments([0, 1, 1, 0, 1])
    [(1, 3), (4, 5)]
    """
    edges = np.diff(np.concatenate([[0], (np.asarray(labels) > 0).astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under precision over recall, one step for each distinct score; chance is the share of ones.

    Args:
        labels: 0 and 1, (n,).
        scores: (n,); NaN counts as the lowest.

    Raises:
        ConfigError: the lengths differ, or there is no one among the labels.

    >>> average_precision([0, 1, 1], [0.1, 0.9, 0.8])
    1.0
    """
    hits, taken, positives, _ = _curve(labels, scores)
    gained = np.diff(np.concatenate([[0.0], hits]))
    return float((gained * hits / taken).sum() / positives)


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a one scores above a zero, ties by half.

    >>> auroc([0, 0, 1], [0.1, 0.9, 0.9])
    0.75
    """
    hits, taken, positives, n = _curve(labels, scores)
    false = np.concatenate([[0.0], taken - hits])
    true = np.concatenate([[0.0], hits])
    if positives == n:
        raise ConfigError("all labels are 1: there is nothing to tell apart")
    return float((np.diff(false) * (true[1:] + true[:-1])).sum() / (2 * positives * (n - positives)))


def event_recall(labels: ArrayLike, scores: ArrayLike, at_fpr: float = 0.01) -> float:
    """Share of segments with at least one alarm, at the threshold that this share of normal rows exceeds at most.

    Args:
        labels: 0 and 1.
        scores: higher is worse.
        at_fpr: share of normal rows that may alarm.
    """
    y, s = _checked(labels, scores)
    found = [bool((s[a:b] > _threshold(y, s, at_fpr)).any()) for a, b in segments(y)]
    return float(np.mean(found))


def detection_delay(labels: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """Median rows from the begin of a found segment to its first alarm; NaN when none is found."""
    y, s = _checked(labels, scores)
    first = [np.flatnonzero(s[a:b] > threshold)[:1] for a, b in segments(y)]
    delays = [int(at[0]) for at in first if len(at)]
    return float(np.median(delays)) if delays else float("nan")


def alarm_rate(scores: ArrayLike, threshold: float = 1.0) -> float:
    """Share of rows above the threshold."""
    return float((np.asarray(scores, np.float64) > threshold).mean())


def vus_pr(labels: ArrayLike, scores: ArrayLike, longest: int = 20, steps: int = 5) -> float:
    """Volume under the precision-recall surface: average precision with soft edges around segments, over edge widths.

    A row at distance d from a segment counts as sqrt(1 - d / width) of an anomaly. "Volume Under the Surface: A New
    Accuracy Evaluation Measure for Time-Series Anomaly Detection" (Paparrizos et al., 2022), without its existence
    reward.

    Args:
        labels: 0 and 1.
        scores: higher is worse.
        longest: widest edge, rows.
        steps: edge widths, from 0 on.
    """
    y, s = _checked(labels, scores)
    order = np.argsort(-s, kind="stable")
    distance = _distance(y)
    areas = []
    for width in np.unique(np.linspace(0, longest, steps).astype(int)):
        soft = np.where(y > 0, 1.0, np.sqrt(np.maximum(0.0, 1 - distance / (width + 1e-9))) if width else 0.0)
        gain = np.cumsum(soft[order])
        precision = gain / np.arange(1, len(y) + 1)
        last = np.append(np.flatnonzero(np.diff(s[order])), len(y) - 1)
        areas.append(float((np.diff(np.concatenate([[0.0], gain[last]])) * precision[last]).sum() / gain[-1]))
    return float(np.mean(areas))


def hit_rate_at(named: Sequence[Sequence[Any]], true: Sequence[Sequence[Any]], percent: float = 100.0) -> float:
    """Mean share of an event's true channels among the first channels named for it.

    Args:
        named: channels of each event, worst first.
        true: channels at fault of each event, at least one.
        percent: how many of those named count, of the number of true ones.

    >>> hit_rate_at([["a", "b", "c"]], [["a", "c"]]), hit_rate_at([["a", "b", "c"]], [["a", "c"]], 150)
    (0.5, 1.0)
    """
    shares = []
    for guess, channels in zip(named, true, strict=True):
        count = int(percent / 100 * len(channels))
        shares.append(len(set(guess[:count]) & set(channels)) / len(channels))
    return float(np.mean(shares))


def point_adjusted_f1(labels: ArrayLike, scores: ArrayLike, seed: int = 0) -> Adjusted:
    """Best F1 over all thresholds after point adjustment, beside that of uniform random scores.

    Args:
        labels: 0 and 1.
        scores: higher is worse.
        seed: of the random scores.
    """
    y, s = _checked(labels, scores)
    random = np.random.default_rng(derive(seed, "control")).random(len(y))
    return Adjusted(_adjusted(y, s), _adjusted(y, random))


def summary(labels: ArrayLike, scores: ArrayLike, seed: int = 0, adjusted: bool = False) -> list[dict[str, Any]]:
    """Rows of a table: the scores, and random scores as a control.

    Args:
        labels: 0 and 1.
        scores: higher is worse; above 1 is an alarm.
        seed: of the random scores.
        adjusted: add the point-adjusted F1.
    """
    y, s = _checked(labels, scores)
    random = np.random.default_rng(derive(seed, "control")).random(len(y))
    rows = []
    for name, values in (("scores", s), ("random control", random)):
        row: dict[str, Any] = {
            "name": name, "average_precision": average_precision(y, values), "auroc": auroc(y, values),
            "event_recall_at_1_percent_fpr": event_recall(y, values, 0.01), "vus_pr": vus_pr(y, values),
        }  # fmt: skip
        rows.append(row | ({"point_adjusted_f1": _adjusted(y, values)} if adjusted else {}))
    return rows


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    y = (np.asarray(labels).ravel() > 0).astype(np.int64)
    s = np.asarray(scores, np.float64).ravel()
    if len(y) != len(s):
        raise ConfigError(f"{len(y)} labels and {len(s)} scores: give one score for each label")
    if not y.any():
        raise ConfigError("no label is 1: without an anomaly nothing can be found")
    lowest = s[np.isfinite(s)].min(initial=0.0)
    return y, np.where(np.isnan(s), lowest - 1, s)


def _curve(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], int, int]:
    """Hits and rows taken at each distinct threshold, from the highest on."""
    y, s = _checked(labels, scores)
    order = np.argsort(-s, kind="stable")
    last = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    hits = np.cumsum(y[order])[last].astype(np.float64)
    return hits, last + 1.0, int(y.sum()), len(y)


def _threshold(y: NDArray[np.int64], s: NDArray[np.float64], at_fpr: float) -> float:
    normal = np.sort(s[y == 0])[::-1]
    return float(normal[int(at_fpr * len(normal))]) if len(normal) else -np.inf


def _distance(y: NDArray[np.int64]) -> NDArray[np.float64]:
    ones = np.flatnonzero(y)
    at = np.searchsorted(ones, np.arange(len(y)))
    left, right = ones[np.clip(at - 1, 0, None)], ones[np.clip(at, None, len(ones) - 1)]
    rows = np.arange(len(y))
    return np.minimum(np.abs(rows - left), np.abs(rows - right)).astype(np.float64)


def _adjusted(y: NDArray[np.int64], s: NDArray[np.float64]) -> float:
    """A segment is found whole once the threshold falls to its highest score."""
    tops = np.array([s[a:b].max() for a, b in segments(y)])
    lengths = np.array([b - a for a, b in segments(y)])
    normal = np.sort(s[y == 0])
    order = np.argsort(-tops, kind="stable")
    hits = np.cumsum(lengths[order])
    false = len(normal) - np.searchsorted(normal, tops[order], side="left")
    return float((2 * hits / (hits + false + y.sum())).max())
