"""The detector on its stream: layout, peer stage, reduction, series, threshold, alerts, row after row."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netfit.detect._alerts import Alert, Evidence, Tracker
from netfit.detect._frame import Frame, TimeOrderError
from netfit.detect._groups import GroupBy, grouper
from netfit.detect._layout import Layout
from netfit.detect._peers import PeerDBSCAN, PeerStage
from netfit.detect._reduce import GroupReducer, Held
from netfit.detect._series import Series, SeriesRows
from netfit.detect._shifts import Shifts
from netfit.detect._spot import SPOT
from netfit.detect._window_pca import Temporal, WindowPCA
from netfit.kernels.peers import LONGEST, PeerRows
from netfit.streaming import State

__all__ = ["Engine", "Level", "Result", "Setup"]

Level = Literal["time", "group", "entity", "channel"]
_BLOCK = 512  # rows worked on together; no result depends on it
_KINDS = ("peer", "zero", "absent", "new", "shift")
_FLEET = ""
_EXPLAINED = 5  # features named for one row of a series


@dataclass(frozen=True)
class Setup:
    """What the engine is made from; see `HybridDetector`."""

    group_by: GroupBy
    entity: GroupBy
    peer: PeerDBSCAN
    reducer: GroupReducer
    temporal: Temporal | None
    threshold: SPOT
    combine: str
    watch_absence: bool
    min_presence: int
    lifetime: int


class Result(NamedTuple):
    """Scores of some rows, by names of their level, and the alerts they raised and ended."""

    scores: NDArray[np.float64]
    names: list[str]
    alerts: list[Alert]


class Engine:
    """All that a detector remembers.

    Args:
        setup: what it is made from.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.layout = Layout(setup.group_by)
        self.peers = PeerStage(setup.peer, setup.min_presence, setup.lifetime, setup.watch_absence)
        self.series: dict[str, Series] = {}
        self.spot = setup.threshold.start()
        self.shifts = Shifts()
        self.tracker = Tracker(setup.peer.min_duration)
        self.last_time = -np.inf
        self.rows_seen = self.empty_rows = 0
        self._times = np.empty(0)
        self._entity: Callable[[str], str | None] | None = None if setup.entity is None else grouper(setup.entity)
        self._members: dict[str, NDArray[np.int64]] = {}
        self._places: dict[str, NDArray[np.int64]] = {}
        self._subject: list[str] = []

    def run(self, frame: Frame, level: Level | None = None) -> Result:
        """Take the next rows.

        Args:
            frame: rows after those taken so far.
            level: of the scores to return; None returns no scores.

        Raises:
            TimeOrderError: the first row does not come after the last one taken.
            ConfigError: the columns cannot be used.
        """
        if len(frame) and not frame.times[0] > self.last_time:
            raise TimeOrderError(
                f"row 0 is at time {frame.times[0]:.15g}, the last row taken at {self.last_time:.15g}: give later rows"
            )
        self._use(frame.columns)
        alerts: list[Alert] = []
        scores = []
        for at in range(0, len(frame), _BLOCK):
            block = frame.rows(slice(at, at + _BLOCK))
            told, found = self._block(block, level)
            alerts += told
            scores.append(found)
        names = self._names(level)
        return Result(np.concatenate(scores) if scores else np.empty((0, len(names))), names, alerts)

    @property
    def entities(self) -> int:
        """How many entities are watched."""
        return len(self._members)

    def _use(self, columns: Any) -> None:
        moved = self.layout.use(columns, self.peers.unused)
        if moved is not None:
            self.peers.move(moved, self.layout.groups, self.layout.offset)
            self._index()

    def _index(self) -> None:
        """Which slots belong to which entity and feature; after the slots changed."""
        layout, setup = self.layout, self.setup
        names = [name for _, name in layout.keys]
        subjects = [group if self._entity is None else self._entity(name) for group, name in layout.keys]
        self._subject = [group if s is None else str(s) for s, (group, _) in zip(subjects, layout.keys, strict=True)]
        if np.diff(layout.offset).max(initial=0) == 1 and not self.rows_seen and len(names) > 1:
            warnings.warn(
                "every group has one channel: there are no peers, only the temporal stage works", stacklevel=5
            )
        if setup.temporal is None or not names:
            return
        self._members = {}
        if self._entity is not None:
            order = np.argsort(np.array(self._subject, object), kind="stable")
            sorted_names = np.array(self._subject, object)[order]
            for part in np.split(order, np.flatnonzero(sorted_names[1:] != sorted_names[:-1]) + 1):
                self._members[self._subject[part[0]]] = part
        features = {_FLEET: setup.reducer.names(layout.groups)}
        features |= {subject: [names[slot] for slot in part] for subject, part in self._members.items()}
        self._places = {}
        for subject, listed in features.items():
            if subject not in self.series:
                self.series[subject] = self._series(subject)
            self._places[subject] = self.series[subject].places(listed)

    def _series(self, subject: str) -> Series:
        """A series that has seen no row. A forecaster knows the fleet only: what it was trained on."""
        temporal = self.setup.temporal
        assert temporal is not None
        if subject == _FLEET:
            return Series(temporal, Held(self.setup.reducer.fill), with_peers=False)
        return Series(temporal if isinstance(temporal, WindowPCA) else WindowPCA(), Held("hold"), with_peers=True)

    def reduced(self, frame: Frame) -> NDArray[np.float64]:
        """What the temporal stage will see of the fleet in these rows, (n, groups * statistics), without NaN."""
        self._use(frame.columns)
        rows = self.peers.rows(np.ascontiguousarray(frame.values, np.float64), self.layout.source, False)
        values = self.setup.reducer.reduce(rows)
        held = Held(self.setup.reducer.fill)
        held.widen(values.shape[1])
        return held.fill(values)

    def _block(self, frame: Frame, level: Level | None) -> tuple[list[Alert], NDArray[np.float64]]:
        x = np.ascontiguousarray(frame.values, np.float64)
        source = self.layout.source
        dense = level == "channel" or bool(self._members) or (level == "entity" and self._entity is not None)
        rows = self.peers.rows(x, source, dense)
        found = self._series_rows(x, rows)
        rows = self._unusual(rows, found)
        calibrated = self._calibrate(found, len(x))
        alerts = self._alerts(frame.times, x, rows, found, calibrated)
        empty = ~rows.count.any(1)
        self.empty_rows += int(empty.sum())
        self.rows_seen += len(x)
        self.last_time = float(frame.times[-1])
        scores = self._scores(level, rows, calibrated, len(x)) if level else np.empty((len(x), 0))
        scores[empty] = np.nan
        return alerts, scores

    def _series_rows(self, x: NDArray[np.float64], rows: PeerRows) -> dict[str, SeriesRows]:
        if self.setup.temporal is None:
            return {}
        found = {}
        for subject, places in self._places.items():
            series = self.series[subject]
            if subject == _FLEET:
                found[subject] = series.rows(self.setup.reducer.reduce(rows), places)
            else:
                part = self._members[subject]
                column = self.layout.source[part]
                values = np.where(column >= 0, x[:, column], np.nan)
                values[~np.isfinite(values)] = np.nan
                assert rows.z is not None
                found[subject] = series.rows(values, places, rows.z[:, part].astype(np.float64))
        return found

    def _unusual(self, rows: PeerRows, found: dict[str, SeriesRows]) -> PeerRows:
        """Without the shifts that are usual for their channel.

        The others are alarms, and scores where no series ranks the rows yet: it does that better than they do.
        """
        events = rows.events
        keep = np.ones(len(events), bool)
        for i in np.flatnonzero(events["kind"] == _KINDS.index("shift")):
            row, slot, score = int(events["row"][i]), int(events["slot"][i]), float(events["score"][i])
            keep[i] = self.shifts.unusual(self.layout.keys[slot][1], self.rows_seen + row, score)
            series = found.get(self._subject[slot])
            if not keep[i] or (series is not None and np.isfinite(series.score[row])):
                continue
            group = int(np.searchsorted(self.layout.offset, slot, side="right")) - 1
            rows.group_score[row, group] = max(rows.group_score[row, group], score)
            if rows.score is not None:
                rows.score[row, slot] = max(rows.score[row, slot], score)
        return replace(rows, events=events[keep])

    def _calibrate(self, found: dict[str, SeriesRows], n: int) -> dict[str, NDArray[np.float64]]:
        """Scores of the series with 1 as the threshold that the stream had reached at each row."""
        thresholds = np.full(n, np.inf)
        if not found:
            return {}
        every = np.stack([part.score for part in found.values()])
        worst = np.where(np.isfinite(every), every, -np.inf).max(0)
        for i, score in enumerate(worst.tolist()):
            thresholds[i] = max(self.spot.threshold, 1e-9)
            self.spot.update(score if score >= 0 else np.nan)
        return {s: np.nan_to_num(part.score) / thresholds for s, part in found.items()}

    def _alerts(
        self, times: NDArray[np.float64], x: NDArray[np.float64], rows: PeerRows, found: dict[str, SeriesRows],
        calibrated: dict[str, NDArray[np.float64]],
    ) -> list[Alert]:  # fmt: skip
        events = rows.events if self.setup.combine != "temporal" else rows.events[:0]
        starts = np.searchsorted(events["row"], np.arange(len(times) + 1))
        stream = np.concatenate([self._times, times])
        before = len(self._times)
        loud = np.zeros(len(times), bool)
        if self.setup.combine != "peer":
            for score in calibrated.values():
                loud |= score > 1
        told: list[Alert] = []
        for i, time in enumerate(times.tolist()):
            here = events[starts[i] : starts[i + 1]]
            if not (len(here) or loud[i] or self.tracker.open()):
                continue
            evidence = list(self._peer_evidence(here, stream[: before + i + 1]))
            if loud[i]:
                evidence += self._temporal_evidence(i, time, x[i], rows, found, calibrated)
            told += self.tracker.row(time, evidence)
        self._times = stream[-max(self.setup.peer.min_duration, self.setup.min_presence, LONGEST) :].copy()
        return told

    def _peer_evidence(self, events: NDArray[Any], times: NDArray[np.float64]) -> Iterator[Evidence]:
        for e in events:
            group, name = self.layout.keys[e["slot"]]
            since = float(times[-min(int(e["run"]), len(times))])
            z = float(e["z"])
            weight = abs(z) if np.isfinite(z) else 1.0
            numbers = (weight, float(e["x"]), float(e["expected"]), z, float(e["score"]))
            yield Evidence(self._subject[e["slot"]], _KINDS[e["kind"]], since, group, name, *numbers)

    def _temporal_evidence(
        self, i: int, time: float, x: NDArray[np.float64], rows: PeerRows, found: dict[str, SeriesRows],
        calibrated: dict[str, NDArray[np.float64]],
    ) -> Iterator[Evidence]:  # fmt: skip
        group_of = {name: group for group, name in self.layout.keys}
        values = dict(
            zip((name for _, name in self.layout.keys), np.append(x, np.nan)[self.layout.source], strict=True)
        )
        values |= dict(
            zip(self.setup.reducer.names(self.layout.groups), self.setup.reducer.reduce(rows)[i], strict=True)
        )
        for subject, score in calibrated.items():
            if score[i] <= 1:
                continue
            part, names = found[subject], self.series[subject].names
            for f in np.argsort(-part.share[i], kind="stable")[:_EXPLAINED]:
                name, weight = names[f], float(part.share[i, f])
                if weight > 0:
                    group = group_of.get(name) or name.rpartition(":")[0]
                    observed, expected = float(values.get(name, np.nan)), float(part.expected[i, f])
                    numbers = (weight, observed, expected, np.nan, float(score[i]))
                    yield Evidence(subject, "temporal", time, group, name, *numbers)

    def _names(self, level: Level | None) -> list[str]:
        match level:
            case "time":
                return ["score"]
            case "group":
                return list(self.layout.groups)
            case "entity":
                return sorted(set(self._subject))
            case "channel":
                return [name for _, name in self.layout.keys]
        return []

    def _scores(
        self, level: Level, rows: PeerRows, calibrated: dict[str, NDArray[np.float64]], n: int
    ) -> NDArray[np.float64]:
        """Scores of one level; a stage that is left out of `combine` adds nothing."""
        peer, temporal = self.setup.combine != "temporal", self.setup.combine != "peer"
        if level == "channel":
            assert rows.score is not None
            return rows.score.astype(np.float64)
        group = rows.group_score if peer else np.zeros_like(rows.group_score)
        if level == "group":
            return np.where(rows.count > 0, group, np.nan)
        if level == "entity":
            return self._entity_scores(rows, calibrated, n)
        series = np.max([np.zeros(n), *calibrated.values()], axis=0) if temporal else np.zeros(n)
        return _fused(group.max(1, initial=0), series, bool(self._members))[:, None]

    def _entity_scores(self, rows: PeerRows, calibrated: dict[str, NDArray[np.float64]], n: int) -> NDArray[np.float64]:
        peer, temporal = self.setup.combine != "temporal", self.setup.combine != "peer"
        names = self._names("entity")
        out = np.empty((n, len(names)))
        subjects = np.array(self._subject, object)
        for i, name in enumerate(names):
            if self._entity is None:
                worst = rows.group_score[:, self.layout.groups.index(name)]
            else:
                assert rows.score is not None
                worst = np.nan_to_num(rows.score[:, subjects == name]).max(1, initial=0).astype(np.float64)
            series = calibrated.get(name, np.zeros(n)) if temporal else np.zeros(n)
            out[:, i] = _fused(worst if peer else np.zeros(n), series, name in calibrated)
        return out

    def state(self) -> State:
        """What a restart needs."""
        numbers = np.array([self.last_time, self.rows_seen, self.empty_rows])
        series = {str(i): {"subject": name, **s.state()} for i, (name, s) in enumerate(self.series.items())}
        return {
            "numbers": numbers, "times": self._times.copy(), "layout": self.layout.state(), "peers": self.peers.state(),
            "series": series, "spot": self.spot.state(), "shifts": self.shifts.state(), "tracker": self.tracker.state(),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        last, seen, empty = state["numbers"].tolist()
        self.last_time, self.rows_seen, self.empty_rows = last, int(seen), int(empty)
        self._times = state["times"].copy()
        self.layout.restore(state["layout"])
        self.peers.restore(state["peers"], self.layout.groups, self.layout.offset)
        self.series = {}
        for i in range(len(state["series"])):
            saved = state["series"][str(i)]
            series = self._series(saved["subject"])
            series.restore(saved)
            self.series[saved["subject"]] = series
        self._index()
        self.spot.restore(state["spot"])
        self.shifts.restore(state["shifts"])
        self.tracker.restore(state["tracker"])


def _fused(peer: NDArray[np.float64], series: NDArray[np.float64], ranked: bool) -> NDArray[np.float64]:
    """The larger score. Where a series ranks rows by distance from peers, the peer stage adds its alarms only."""
    return np.maximum(series, np.where(peer > 1, peer, 0.0)) if ranked else np.maximum(peer, series)
