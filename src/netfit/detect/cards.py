"""What a page needs to show why an alert was raised: the worst channel among its peers, around the time it began."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netfit.detect._alerts import Alert
from netfit.detect._frame import Frame

if TYPE_CHECKING:
    from netfit.detect._hybrid import HybridDetector

__all__ = ["cards"]

_MOST, _BEFORE, _AFTER = 40, 60, 60  # cards; rows around the beginning


def cards(detector: "HybridDetector", alerts: Sequence[Alert], frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """Cards of the alerts, the highest scores first.

    Args:
        detector: that raised them; it knows which channels are peers.
        alerts: as `HybridDetector.detect` returned them; one that is over replaces its beginning.
        frames: rows that are still at hand.

    Returns:
        for each alert its JSON form with ``rows``: time, observed, and of its peers low, median and high; empty where
        the rows are gone. JSON-able.
    """
    latest = {alert.id: alert for alert in alerts}
    worst = sorted(latest.values(), key=lambda a: (-a.score, a.id))[:_MOST]
    group_of = detector.groups_of_channels()
    return [alert.to_json() | {"rows": _rows(alert, frames, group_of)} for alert in worst]


def _rows(alert: Alert, frames: Sequence[Frame], group_of: dict[str, str]) -> dict[str, list[Any]]:
    name = alert.channels[0].name if alert.channels else ""
    group = group_of.get(name, name.rpartition(":")[0])
    parts = [_part(frame, name, group, group_of) for frame in frames]
    table = np.concatenate(parts) if parts else np.empty((0, 5))
    at = int(np.searchsorted(table[:, 0], alert.start))
    near = table[max(0, at - _BEFORE) : at + _AFTER] if len(table) and alert.start >= table[0, 0] else table[:0]
    names = ("time", "observed", "low", "median", "high")
    return {key: [None if v != v else v for v in near[:, i].tolist()] for i, key in enumerate(names)}


def _part(frame: Frame, name: str, group: str, group_of: dict[str, str]) -> NDArray[np.float64]:
    columns = list(frame.columns)
    peers = [i for i, column in enumerate(columns) if group_of.get(column) == group]
    out = np.full((len(frame), 5), np.nan)
    out[:, 0] = frame.times
    if peers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # rows in which nobody is present
            out[:, 2:] = np.nanquantile(frame.values[:, peers], [0.0, 0.5, 1.0], axis=1).T
    out[:, 1] = frame.values[:, columns.index(name)] if name in columns else out[:, 3]
    return out
