"""From rows that stand out to few alerts: one for each thing that is wrong, from when it starts until it is quiet."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from netfit.streaming import State

__all__ = ["Alert", "Contribution", "Evidence", "Tracker"]

_KINDS = ("peer", "zero", "shift", "absent", "new", "temporal")
_LISTED = 20  # channels of an alert that are kept


@dataclass(frozen=True)
class Contribution:
    """One channel of an alert.

    Args:
        name: of the channel, or ``"group:statistic"`` where a group as a whole stands out.
        share: of the alert, 0 to 1.
        observed: value at its worst row, NaN where the channel is absent.
        expected: what its peers or its past let expect; NaN where nothing is known.
        z: distance from that, in usual distances; NaN where the temporal stage found it.
    """

    name: str
    share: float
    observed: float
    expected: float
    z: float


@dataclass(frozen=True)
class Alert:
    """Something is wrong, or was.

    Args:
        id: number of the alert on its stream; raised and ended it has the same.
        start: time since when.
        raised: time of the row that raised it: some rows must stand out first.
        end: time of the last row that stood out; None while it lasts.
        kind: ``"peer"`` (differs from its peers), ``"zero"`` (so, at zero), ``"shift"`` (so, less but for
            long), ``"absent"``, ``"new"``, ``"temporal"`` (differs from its past).
        subject: the entity it is about, or the group; "" for the fleet.
        groups: of its channels.
        channels: those that contribute most, worst first.
        score: highest so far; alarms lie above `threshold`.
        threshold: always 1: scores are calibrated.
    """

    id: int
    start: float
    raised: float
    end: float | None
    kind: str
    subject: str
    groups: tuple[str, ...]
    channels: tuple[Contribution, ...]
    score: float
    threshold: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold; numbers that are none become null."""
        found = asdict(self)
        for channel in found["channels"]:
            channel |= {k: None for k, v in channel.items() if isinstance(v, float) and not np.isfinite(v)}
        return found


@dataclass(frozen=True)
class Evidence:
    """One channel that stands out in one row."""

    subject: str
    kind: str
    since: float  # time
    group: str
    name: str
    weight: float
    observed: float
    expected: float
    z: float
    score: float


@dataclass
class _Open:
    id: int
    start: float
    raised: float
    last: float
    kind: str
    score: float
    quiet: int = 0
    groups: list[str] = field(default_factory=list)
    channels: dict[str, list[float]] = field(default_factory=dict)  # weight, observed, expected, z


class Tracker:
    """Alerts that are open, by subject.

    Args:
        patience: rows without evidence that end an alert.
    """

    def __init__(self, patience: int) -> None:
        self._patience, self._next = patience, 1
        self._open: dict[str, _Open] = {}

    def row(self, time: float, evidence: Iterable[Evidence]) -> list[Alert]:
        """Take what stands out in one row; returns alerts that begin and that are over.

        Evidence counts in the order of subject and name, so that the place of a column does not.
        """
        told, fresh, touched = [], [], set()
        for e in sorted(evidence, key=lambda e: (e.subject, e.name, e.kind)):
            entry = self._open.get(e.subject)
            if entry is None:
                entry = self._open[e.subject] = _Open(self._next, e.since, time, time, e.kind, e.score)
                self._next += 1
                fresh.append(e.subject)
            touched.add(e.subject)
            _add(entry, e, time)
        for subject in [s for s in self._open if s not in touched]:
            entry = self._open[subject]
            entry.quiet += 1
            if entry.quiet >= self._patience:
                told.append(_alert(subject, self._open.pop(subject), over=True))
        return told + [_alert(subject, self._open[subject], over=False) for subject in fresh]

    def open(self) -> list[Alert]:
        """Alerts that last."""
        return [_alert(subject, entry, over=False) for subject, entry in self._open.items()]

    def state(self) -> State:
        """What a restart needs."""
        return {
            str(i): {
                "subject": subject, "id": e.id, "kind": e.kind, "quiet": e.quiet, "groups": list(e.groups),
                "names": list(e.channels), "numbers": np.array([e.start, e.raised, e.last, e.score]),
                "channels": np.array(list(e.channels.values()), np.float64).reshape(-1, 4),
            }
            for i, (subject, e) in enumerate(self._open.items())
        } | {"next": self._next}  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        self._next, self._open = state["next"], {}
        for i in range(len(state) - 1):
            e: Mapping[str, Any] = state[str(i)]
            start, raised, last, score = e["numbers"].tolist()
            channels = dict(zip(e["names"], e["channels"].tolist(), strict=True))
            self._open[e["subject"]] = _Open(
                e["id"], start, raised, last, e["kind"], score, e["quiet"], list(e["groups"]), channels
            )


def _add(entry: _Open, e: Evidence, time: float) -> None:
    entry.last, entry.quiet = time, 0
    entry.start, entry.score = min(entry.start, e.since), max(entry.score, e.score)
    if e.group not in entry.groups:
        entry.groups.append(e.group)
    old = entry.channels.get(e.name)
    if old is None or e.weight > old[0]:
        entry.channels[e.name] = [e.weight, e.observed, e.expected, e.z]
    if len(entry.channels) > 4 * _LISTED:
        worst = sorted(entry.channels.items(), key=lambda item: (-item[1][0], item[0]))
        entry.channels = dict(worst[: 2 * _LISTED])


def _alert(subject: str, entry: _Open, over: bool) -> Alert:
    worst = sorted(entry.channels.items(), key=lambda item: (-item[1][0], item[0]))[:_LISTED]
    total = sum(numbers[0] for _, numbers in worst) or 1.0
    channels = tuple(Contribution(name, w / total, observed, expected, z) for name, (w, observed, expected, z) in worst)
    end, groups = entry.last if over else None, tuple(entry.groups)
    return Alert(entry.id, entry.start, entry.raised, end, entry.kind, subject, groups, channels, entry.score)
