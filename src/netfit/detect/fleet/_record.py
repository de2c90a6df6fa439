"""Counters of real processes, some of which fail on purpose."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from netfit.detect._frame import Frame
from netfit.detect.inputs import read_whole, write_parquet
from netfit.errors import ArtifactError, ConfigError, did_you_mean, require
from netfit.seeding import derive

__all__ = ["FAULTS", "Fault", "Recording", "read_recording", "record", "write_recording"]

FAULTS = ("leak", "busy", "hang", "kill")
_METRICS = ("cpu", "rss", "switches")
_WORKER = Path(__file__).with_name("_worker.py")
_NOTE = "netfit.faults"
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Fault:
    """What was done to one node.

    Args:
        node: its name.
        kind: one of `FAULTS`.
        start: seconds since the recording began.
        end: when the node was replaced by another one.
    """

    node: str
    kind: str
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class Recording:
    """Counters of a fleet and its faults.

    Args:
        frame: one row an interval; columns ``"group=g0,node=n3,metric=cpu"`` (share of a core), ``rss`` (MiB) and
            ``switches`` (voluntary context switches a second), NaN while a node is not there.
        faults: in the order of time.
        moves: (node, "left" or "joined", seconds) of nodes that came and went in order, or replaced a failed one.
    """

    frame: Frame
    faults: tuple[Fault, ...]
    moves: tuple[tuple[str, str, float], ...] = ()

    def labels(self) -> NDArray[np.uint8]:
        """1 for rows during which a fault lasts, uint8 (rows,)."""
        hit = [(self.frame.times >= f.start) & (self.frame.times <= f.end) for f in self.faults]
        return np.any([np.zeros(len(self.frame), bool), *hit], axis=0).astype(np.uint8)


@dataclass
class _Node:
    name: str
    group: str
    process: "subprocess.Popen[str]"
    watch: psutil.Process
    last: tuple[float, float, float] = (0.0, 0.0, 0.0)  # moment, cpu seconds, switches
    rows: dict[int, list[float]] = field(default_factory=dict)


def record(
    *, groups: int = 3, nodes: int = 24, seconds: float = 300.0, faults: Sequence[str] = FAULTS, churn: float = 0.1,
    interval_s: float = 1.0, seed: int = 0, progress: Progress | None = None,
) -> Recording:  # fmt: skip
    """Start a fleet of processes on this machine, make some of them fail, and read their counters.

    After a fifth of the time the faults follow each other evenly, six seconds at least each; a node that failed is
    replaced by one of a new name.

    Args:
        groups: of alike nodes.
        nodes: processes of each group.
        seconds: how long.
        faults: kinds, of `FAULTS`; each befalls every group once, as far as the time allows.
        churn: share of the nodes that leave in order while others join.
        interval_s: seconds between rows.
        seed: of who fails and moves, and of the nodes' work.
        progress: told the seconds so far and what happens.

    Raises:
        ConfigError: a number is out of range or a fault unknown.
    """
    for kind in faults:
        if kind not in FAULTS:
            raise ConfigError(f"unknown fault {kind!r}; {did_you_mean(kind, FAULTS)}")
    if groups < 1 or nodes < 2 or not seconds > 0 or not interval_s > 0 or not 0 <= churn <= 1:
        given = f"groups={groups}, nodes={nodes}, seconds={seconds}, interval_s={interval_s}, churn={churn}"
        raise ConfigError(f"{given}: choose at least 1 group of 2 nodes, positive seconds, and churn from 0 to 1")
    fleet = _Fleet(groups, nodes, seed)
    try:
        return _Recorder(fleet, seconds, interval_s, progress).run(_plan(fleet, seconds, faults, churn, seed))
    finally:
        fleet.stop()


class _Fleet:
    """The processes that run, and those that ran."""

    def __init__(self, groups: int, nodes: int, seed: int) -> None:
        self._seed, self._count = seed, 0
        self.alive: dict[str, _Node] = {}
        self.all: list[_Node] = []
        self.groups = [f"g{i}" for i in range(groups)]
        for group in self.groups:
            for _ in range(nodes):
                self.start(group)

    def start(self, group: str) -> str:
        name = f"n{self._count:03d}"
        draw = np.random.default_rng(derive(self._seed, name))
        number = self.groups.index(group)
        amount, size = int(2500 * (1 + number) * draw.uniform(0.95, 1.05)), (2 + 3 * number) * draw.uniform(0.98, 1.02)
        command = [sys.executable, "-I", "-S", str(_WORKER), str(self._count), str(amount), str(size)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        node = _Node(name, group, process, psutil.Process(process.pid))
        self.alive[name] = node
        self.all.append(node)
        self._count += 1
        return name

    def tell(self, name: str, kind: str) -> None:
        node = self.alive[name]
        if kind == "kill":
            node.process.kill()
            node.process.wait()
        elif node.process.stdin is not None:
            node.process.stdin.write(f"{kind}\n")
            node.process.stdin.flush()

    def remove(self, name: str) -> None:
        node = self.alive.pop(name)
        node.process.kill()
        node.process.wait()
        if node.process.stdin is not None:
            node.process.stdin.close()

    def stop(self) -> None:
        for name in list(self.alive):
            self.remove(name)


_Step = tuple[float, str, str]  # seconds, what, group


def _plan(fleet: _Fleet, seconds: float, faults: Sequence[str], churn: float, seed: int) -> list[_Step]:
    """What happens when: faults evenly, moves in between."""
    draw = np.random.default_rng(derive(seed, "plan"))
    wanted = [(kind, group) for kind in faults for group in fleet.groups]
    room = int(0.75 * seconds / 6)
    order = draw.permutation(len(wanted))[:room]
    gap = 0.75 * seconds / max(len(order), 1)
    steps: list[_Step] = [(0.2 * seconds + i * gap, *wanted[j]) for i, j in enumerate(order)]
    moves = round(churn * len(fleet.all))
    steps += [
        (float(at), "move", str(draw.choice(fleet.groups))) for at in draw.uniform(0.1 * seconds, 0.95 * seconds, moves)
    ]
    return sorted(steps)


class _Recorder:
    """Rows, one an interval, while the plan is carried out."""

    def __init__(self, fleet: _Fleet, seconds: float, interval_s: float, progress: Progress | None) -> None:
        self._fleet, self._seconds, self._interval_s = fleet, seconds, interval_s
        self._progress = progress or (lambda _seconds, _what: None)
        self._draw = np.random.default_rng(derive(len(fleet.all), "victims"))
        self._failing: dict[str, tuple[str, float, float]] = {}  # node -> kind, start, when it is replaced
        self._faults: list[Fault] = []
        self._moves: list[tuple[str, str, float]] = []

    def run(self, plan: list[_Step]) -> Recording:
        lasting = 0.6 * 0.75 * self._seconds / max(sum(step[1] != "move" for step in plan), 1)
        steps, times = list(plan), []
        begin = time.monotonic()
        self._read(-1)  # counters are differences: the first reading makes no row
        for row in range(round(self._seconds / self._interval_s)):
            wait = begin + (row + 1) * self._interval_s - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            now = (row + 1) * self._interval_s
            times.append(now)
            self._read(row)
            while steps and steps[0][0] <= now:
                self._do(steps.pop(0), now, max(lasting, 6 * self._interval_s))
            for name in [n for n, (_, _, end) in self._failing.items() if end <= now]:
                self._replace(name, now)
        for name in list(self._failing):
            self._replace(name, times[-1])
        faults = tuple(sorted(self._faults, key=lambda f: f.start))
        return Recording(self._table(np.array(times)), faults, tuple(self._moves))

    def _do(self, step: _Step, now: float, lasting: float) -> None:
        _, what, group = step
        healthy = [n.name for n in self._fleet.alive.values() if n.group == group and n.name not in self._failing]
        if len(healthy) < 2:
            return
        name = str(self._draw.choice(healthy))
        self._progress(now, f"{what} {name}")
        if what == "move":
            self._fleet.remove(name)
            self._moves += [(name, "left", now), (self._fleet.start(group), "joined", now)]
        else:
            self._fleet.tell(name, what)
            self._failing[name] = what, now, now + lasting

    def _replace(self, name: str, now: float) -> None:
        kind, start, _ = self._failing.pop(name)
        group = self._fleet.alive[name].group
        self._fleet.remove(name)
        self._moves.append((self._fleet.start(group), "joined", now))
        self._faults.append(Fault(name, kind, start, now))

    def _read(self, row: int) -> None:
        for node in self._fleet.alive.values():
            try:
                with node.watch.oneshot():
                    cpu = node.watch.cpu_times()
                    busy, switches = cpu.user + cpu.system, float(node.watch.num_ctx_switches().voluntary)
                    rss = node.watch.memory_info().rss / 2**20
            except psutil.Error:
                continue
            moment = time.monotonic()
            before, node.last = node.last, (moment, busy, switches)
            if row >= 0 and before[0] and rss:
                span = moment - before[0]
                node.rows[row] = [(busy - before[1]) / span, rss, (switches - before[2]) / span]

    def _table(self, times: NDArray[np.float64]) -> Frame:
        nodes = [node for node in self._fleet.all if node.rows]
        values = np.full((len(times), len(nodes), len(_METRICS)), np.nan)
        for i, node in enumerate(nodes):
            values[list(node.rows), i] = list(node.rows.values())
        names = [f"group={node.group},node={node.name},metric={metric}" for node in nodes for metric in _METRICS]
        return Frame(times, tuple(names), values.reshape(len(times), -1))


def write_recording(path: str | Path, recording: Recording) -> None:
    """Write a recording as one Parquet file; faults and moves are notes of it.

    Raises:
        ArtifactError: it cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    notes: Mapping[str, Any] = {"faults": [asdict(f) for f in recording.faults], "moves": recording.moves}
    write_parquet(path, recording.frame, {_NOTE: json.dumps(notes)})


def read_recording(path: str | Path) -> Recording:
    """Read what `write_recording` wrote.

    Raises:
        DataNotFound: there is no such file.
        ArtifactError: it is no recording.
    """
    frame = read_whole(path, "wide")
    notes = require("pyarrow.parquet", "detect").read_schema(path).metadata or {}
    try:
        found = json.loads(notes[_NOTE.encode()])
        faults = tuple(Fault(**fault) for fault in found["faults"])
        return Recording(frame, faults, tuple((str(a), str(b), float(c)) for a, b, c in found["moves"]))
    except (KeyError, TypeError, ValueError) as e:
        raise ArtifactError(f"{path} is no recording of a fleet: its notes hold no faults") from e
