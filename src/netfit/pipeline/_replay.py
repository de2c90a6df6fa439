"""Run a schedule on real processes, to see whether the simulation tells the truth."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from netfit import io
from netfit.errors import ConfigError, JobError

from ._costs import StageCosts
from ._flat import Flat, flatten
from ._schedule import KINDS, Schedule
from ._simulate import simulate
from ._timeline import Timeline

__all__ = ["Agreement", "agreement", "replay"]

_START_S = 240.0  # a loaded machine needs long to import torch in every process
_MOST = 64


class Agreement(NamedTuple):
    """How a replay compares with a simulation.

    Attributes:
        ratio: makespan of the replay in simulated ones.
        tau: Kendall's rank correlation of the order of operations, of the device where it is lowest.
    """

    ratio: float
    tau: float


def replay(schedule: Schedule, costs: StageCosts) -> Timeline:
    """Run one step with one torch process per device, joined by gloo; stages sleep for their times.

    Args:
        schedule: of one replica; torch runs its table as it is.
        costs: at least 0.1 s a forward, or the overhead of the processes shows.

    Raises:
        ConfigError: two replicas, more processes than sensible, or a table that deadlocks.
        JobError: a process failed or did not end in time; the message has its last words.
        MissingExtraError: torch has other internals than the ones netfit knows.
    """
    if schedule.devices > _MOST:
        raise ConfigError(f"{schedule.devices} devices would start as many processes, allowed up to {_MOST}")
    table = schedule.validate().to_torch_csv()
    costs = costs.for_stages(schedule.stages)
    limit = _START_S + 10.0 * simulate(schedule, costs).makespan
    with tempfile.TemporaryDirectory(prefix="netfit-replay-") as name:
        folder = Path(name)
        io.write_bytes(folder / "table.csv", table.encode())
        seconds = {"F": costs.t_f.tolist(), "B": costs.t_b.tolist(), "W": costs.t_w.tolist()}
        io.write_json(folder / "job.json", {"seconds": seconds, "timeout_s": limit})
        _run(folder, schedule.devices, limit)
        records = [r for d in range(schedule.devices) for r in io.read_json(folder / f"rank{d}.json")]
    return _timeline(schedule, costs, flatten(schedule), records)


def agreement(real: Timeline, simulated: Timeline) -> Agreement:
    """Compare a replay with the simulation of the same schedule.

    Raises:
        ConfigError: they are of different schedules.
    """
    if real.schedule.rows != simulated.schedule.rows:
        raise ConfigError("the replay and the simulation are of different schedules")
    from scipy.stats import kendalltau

    start = real.flat.row_start
    pairs = [(real.start[a:b], simulated.start[a:b]) for a, b in itertools.pairwise(start) if b - a > 1]
    tau = min((float(kendalltau(x, y).statistic) for x, y in pairs), default=1.0)
    return Agreement(real.makespan / simulated.makespan, tau)


def _run(folder: Path, devices: int, limit_s: float) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = []
    try:
        for rank in range(devices):
            with (folder / f"rank{rank}.log").open("wb") as log:
                command = [sys.executable, "-m", "netfit.pipeline._worker", str(folder), str(rank)]
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        end = time.monotonic() + limit_s
        while (codes := [p.poll() for p in processes]) and not all(code == 0 for code in codes):
            if failed := [rank for rank, code in enumerate(codes) if code]:
                raise JobError(f"replay: the process of device {failed[0]} failed: {_last_words(folder, failed[0])}")
            if time.monotonic() > end:
                late = codes.index(None)
                raise JobError(f"replay: device {late} did not end within {limit_s:.0f} s: {_last_words(folder, late)}")
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _last_words(folder: Path, rank: int) -> str:
    lines = (folder / f"rank{rank}.log").read_text(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it said nothing")


def _timeline(schedule: Schedule, costs: StageCosts, flat: Flat, records: list[list[Any]]) -> Timeline:
    number = {
        (KINDS[k], s, j): i for i, (k, s, j) in enumerate(zip(flat.kind, flat.stage, flat.microbatch, strict=True))
    }
    start, end = np.full(len(flat.ops), np.nan), np.full(len(flat.ops), np.nan)
    for kind, stage, microbatch, begin, stop in records:
        i = number[kind, stage, microbatch]
        start[i], end[i] = begin, stop
    if np.isnan(start).any():
        raise JobError(f"replay: {flat.ops[int(np.isnan(start).argmax())]} was never run")
    first = np.flatnonzero(flat.paired)  # torch runs a pair one after the other
    end[first] = end[first + 1]
    start[first + 1] = start[first]
    zero = float(start.min())
    nothing = np.full(len(flat.ops), np.nan)
    return Timeline(
        schedule=schedule, costs=costs, network=None, steps=1, flat=flat, step=np.zeros(len(flat.ops), dtype=np.int64),
        start=start - zero, end=end - zero, arrival=np.zeros(len(flat.ops)), sent=nothing,
    )  # fmt: skip
