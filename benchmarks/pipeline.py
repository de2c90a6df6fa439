"""The figures of the pipeline room (hardware_models.md, acceptance 10 to 13), each against its limit.

``python -m benchmarks.pipeline [exact table speed optimal replay]`` runs the named parts, or all.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks._common import RESULTS, record
from netfit.io import read_json
from netfit.pipeline import Network, Schedule, StageCosts, agreement, make, optimize, replay, simulate
from netfit.pipeline import _optimize as solver
from netfit.pipeline._formula import formula
from netfit.pipeline._torch import TORCH_SCHEDULES

Row = dict[str, Any]
TIMES = ((1.0, 1.0, 1.0), (3.0, 4.0, 2.0), (1.3, 2.1, 0.7))


def exact() -> Iterator[Row]:
    """Every exact formula against the simulated table: time and peak activations."""
    worst: dict[str, tuple[int, float, float]] = {}
    for p in range(2, 17):
        for m in range(1, 65):
            for name in _able(p, m):
                schedule = make(name, p, m).validate()
                for times in TIMES:
                    costs = StageCosts.uniform(p, *times)
                    closed, run = formula(schedule, costs), simulate(schedule, costs)
                    if closed is None or not closed.exact:
                        continue
                    peak = 0.0 if name == "chimera" else abs(closed.peak - run.activation_peak.max())
                    left = max(float(curve[-1]) for _, curve in run.memory)
                    n, off, off_peak = worst.get(name, (0, 0.0, 0.0))
                    off = max(off, abs(run.makespan - closed.seconds) / closed.seconds)
                    worst[name] = n + 1, off, max(off_peak, peak, left)
    for name, (n, off, off_peak) in worst.items():
        yield _row(f"exact: {name}, {n} cases, relative error of the time", off, 1e-9)
        yield _row(f"exact: {name}, error of the peak", off_peak, 1e-9)


def _able(p: int, m: int) -> list[str]:
    names = ["gpipe", "1f1b", "zb-h1"]
    if m % p == 0:
        names += [f"interleaved-{v}" for v in (1, 2, 3, 4)]
        names += ["chimera"] if p % 2 == 0 else []
    return names


def table() -> Iterator[Row]:
    """The rank changes of section 5, p=4 and m=4, backward twice the forward."""
    names = ("zb-h1", "hanayo-2", "chimera", "interleaved", "hanayo-1", "1f1b", "gpipe")
    known = {0.0: (15, 15.25, 16, 16.5, 18, 21, 21), 0.3: (18, 23.4, 18.1, 20.7, 22.2, 24, 22.8)}
    for message, row in known.items():
        off = max(
            abs(simulate(make(n, 4, 4), StageCosts.uniform(4), Network.uniform(4, message)).makespan - s)
            for n, s in zip(names, row, strict=True)
        )
        yield _row(f"rank changes at message {message}: largest difference in t_F", off, 1e-9)
    for send, expected in (("overlap", (121.2, 137.4)), ("blocking", (139.8, 139.5))):
        network = replace(Network.uniform(8, 0.3), send=send)
        found = [simulate(make(n, 8, 32), StageCosts.uniform(8), network).makespan for n in ("gpipe", "1f1b")]
        yield _row(
            f"gpipe and 1f1b p=8 m=32, {send}: largest difference",
            float(np.abs(np.subtract(found, expected)).max()),
            1e-9,
        )
    for name in TORCH_SCHEDULES:
        theirs = Schedule.from_torch(name, 4, 8)
        again = Schedule.from_torch_csv(theirs.to_torch_csv())
        yield _row(f"torch round trip {name}: tables that differ", float(again != theirs), 0.5)


def speed() -> Iterator[Row]:
    """CPU seconds, which other users of the machine hardly change; wall seconds beside them."""
    for m in (1024, 2048):
        wall, cpu = time.perf_counter(), time.process_time()
        simulate(make("1f1b", 64, m), StageCosts.uniform(64))
        cpu = time.process_time() - cpu
        yield _row(f"make and simulate 1f1b, {64 * m * 2} operations: wall seconds", time.perf_counter() - wall, 5.0)
        if m == 1024:
            first = cpu
    yield _row("twice the microbatches: times the CPU seconds", cpu / first, 2.3)
    ours = _fastest(
        lambda: simulate(
            make("interleaved-2", 16, 64), StageCosts.uniform(16, boundary_bytes=1.0), Network.uniform(16, 0.1)
        )
    )
    from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops

    theirs = _fastest(lambda: get_schedule_ops("Interleaved1F1B", 16, 64, 2, with_comms=True), 1)
    yield _row("torch's lowering / make and simulate, p=16 m=64 (at least)", theirs / ours, 5.0, least=True)


def _fastest(call: Callable[[], object], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


def optimal() -> Iterator[Row]:
    """Proofs: by `optimize`, which first counts, and by the solver alone."""
    from ortools.sat.python import cp_model

    for p, m, units, limit_s, limit in ((4, 8, 27, 2.0, 4), (8, 16, 55, 20.0, 8), (4, 8, 31, 10.0, 3)):
        costs = StageCosts.uniform(p)
        start = time.perf_counter()
        found = optimize(p, m, costs, activation_limit=limit, time_limit_s=60)
        assert found.proof is not None and found.proof.optimal and found.proof.found_s == units
        yield _row(
            f"optimize p={p} m={m} limit {limit}: {units} units proven, seconds", time.perf_counter() - start, limit_s
        )
        home = tuple(range(p))
        start, cpu = time.perf_counter(), time.process_time()
        known = solver._best_known(p, m, costs, None, limit)
        model = solver._Model(cp_model, home, m, costs, None, limit, known)
        found = solver._solved(cp_model, model, known, limit, 0.0, 60, 0)
        assert found.proof is not None and found.proof.optimal and found.proof.found_s == units
        yield _row(
            f"CP-SAT alone p={p} m={m} limit {limit}: {units} units proven, seconds",
            time.perf_counter() - start,
            limit_s,
        )
        print(f"  CPU seconds of that: {time.process_time() - cpu:.2f}")
    costs = StageCosts.uniform(4, 4, 5, 3)
    found = optimize(4, 8, costs, Network.uniform(4, 1.0), activation_limit=4)
    assert found.proof is not None and found.proof.optimal
    yield _row("optimize p=4 m=8 times 4,5,3 latency 1: units (1F1B 148)", found.proof.found_s, 126.0)


def replays() -> Iterator[Row]:
    """Real processes against the simulation."""
    for name in ("gpipe", "1f1b", "interleaved-2", "hanayo-1", "hanayo-2", "zb-h1", "zb-v"):
        schedule = make(name, 4, 4)
        each = 0.12 * schedule.chunks  # below 0.1 s an operation the overhead of the processes shows
        costs = StageCosts.uniform(4, each, each, each)
        start = time.perf_counter()
        found = agreement(replay(schedule, costs), simulate(schedule, costs))
        yield _row(f"replay {name} p=4 m=4: real / simulated", found.ratio, 1.07)
        yield _row(f"replay {name} p=4 m=4: Kendall tau (at least)", found.tau, 1 - 1e-9, least=True)
        print(f"  {name}: {found.ratio:.3f}, with start-up {time.perf_counter() - start:.0f} s", flush=True)


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "exact": exact, "table": table, "speed": speed, "optimal": optimal, "replay": replays,
}  # fmt: skip


def _row(what: str, value: float, limit: float, *, least: bool = False) -> Row:
    met = value >= limit if least else value <= limit
    return {"what": what, "value": value, "limit": limit, "met": met}


def main(names: list[str] | None = None) -> None:
    """Run parts; those not run keep their rows of the last time."""
    place = RESULTS / "pipeline.json"
    old = {row["part"]: [] for row in read_json(place)["rows"]} if place.exists() else {}
    for row in read_json(place)["rows"] if place.exists() else []:
        old[row["part"]].append(row)
    for part in names or list(PARTS):
        old[part] = [{"part": part, **row} for row in PARTS[part]()]
    rows = [row for part in PARTS for row in old.get(part, [])]
    record("pipeline", rows)
    failed = [row["what"] for row in rows if not row["met"]]
    assert not failed, f"not met: {failed}"


if __name__ == "__main__":
    main(sys.argv[1:])
