"""Latency truth: is a measured ratio the same on an idle and on a busy machine, and what does a wall clock say?

Every repeat is a process of its own, because where the weights land in memory belongs to the spread. Idle means
that this script adds no load; the load average is recorded, so that a reader sees what else was running.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ._common import record

BUSY_LOOPS = 8
REPEATS = {"idle": 4, "busy": 10}
BUDGET_S = 20.0  # for seven networks in turns: about as much as netfit spends on each
WALL_RUNS = 20
YARDSTICK = "resnet20"
NETS = (YARDSTICK, "resnet18", "conv4", "vgg8", "mlp")
PAIR = ("deep20", "deep21")  # 5 % apart by construction: twenty and twenty-one equal layers
COV_PERCENT, BIAS_PERCENT, WALL_BIAS_PERCENT, ORDERED = 3.0, 5.0, 50.0, 0.95


def main() -> None:
    """Measure in turns under both loads, compare, and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "benchmarks.latency_truth", "export", folder], check=True)
        found: dict[str, list[dict[str, Any]]] = {}
        for load, repeats in REPEATS.items():
            with busy_loops(BUSY_LOOPS if load == "busy" else 0):
                found[load] = [_repeat(folder) for _ in range(repeats)]
    rows = [_row(net, found) for net in NETS[1:] + PAIR]
    ordered = statistics.fmean(r["ratio"][PAIR[0]] < r["ratio"][PAIR[1]] for r in found["busy"])
    ratio_rows = [row for row in rows if row["net"] not in PAIR]
    record(
        "latency_truth",
        rows,
        yardstick=YARDSTICK,
        busy_loops=BUSY_LOOPS,
        repeats=REPEATS,
        budget_s=BUDGET_S,
        load_average={load: [r["load"] for r in runs] for load, runs in found.items()},
        noisy={load: sum(r["noisy"] for r in runs) for load, runs in found.items()},
        pair_ordered=ordered,
        held={
            f"CoV <= {COV_PERCENT} %": all(row["CoV %"] <= COV_PERCENT for row in ratio_rows),
            f"bias <= {BIAS_PERCENT} %": all(abs(row["bias %"]) <= BIAS_PERCENT for row in ratio_rows),
            # A call of microseconds slips through between two switches, so the wall clock need not fail on each.
            f"wall bias > {WALL_BIAS_PERCENT} %": any(row["wall bias %"] > WALL_BIAS_PERCENT for row in ratio_rows),
            f"pair ordered >= {ORDERED}": ordered >= ORDERED,
        },
    )


def _row(net: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    def mean(load: str, what: str) -> float:
        return statistics.fmean(r[what][net] for r in found[load])

    busy = [r["ratio"][net] for r in found["busy"]]
    return {
        "net": net,
        "idle ratio": mean("idle", "ratio"),
        "busy ratio": mean("busy", "ratio"),
        "CoV %": 100 * statistics.stdev(busy) / statistics.fmean(busy),
        "bias %": 100 * (mean("busy", "ratio") / mean("idle", "ratio") - 1),
        "seconds bias %": 100 * (mean("busy", "seconds") / mean("idle", "seconds") - 1),
        "wall bias %": 100 * (mean("busy", "wall") / mean("idle", "wall") - 1),
    }


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Other processes that want a core all the time; they end by themselves if this one is killed."""
    spin = "import os\np = os.getppid()\nwhile os.getppid() == p:\n    sum(range(100000))"
    loops = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(count)]
    try:
        if loops:
            time.sleep(1)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _repeat(folder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.latency_truth", "measure", folder]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(".", end="", flush=True)
    return dict(json.loads(out.splitlines()[-1]))


def _export(folder: str) -> None:
    import torch
    from torch import nn

    from netfit.deploy import export
    from netfit.models import build

    def deep(layers: int) -> nn.Module:
        stem = nn.Conv2d(3, 64, 3, padding=1)
        body = [part for _ in range(layers - 1) for part in (nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))]
        return nn.Sequential(stem, *body)

    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    nets = {n: build(n, num_classes=10, in_shape=(3, 32, 32)) for n in NETS if n != "conv4"}
    nets["conv4"] = deep(4)
    for net, layers in zip(PAIR, (20, 21), strict=True):
        nets[net] = deep(layers)
    for name, net in nets.items():
        export(net.eval(), (x,), Path(folder) / f"{name}.onnx")


def _measure(folder: str) -> None:
    from netfit.deploy import open_session
    from netfit.targets import measure

    calls = {name: open_session(Path(folder) / f"{name}.onnx").warm() for name in NETS + PAIR}
    found = measure(calls, yardstick=YARDSTICK, budget_s=BUDGET_S)
    wall = {}
    for name, call in calls.items():  # what most scripts do
        seconds = []
        for _ in range(WALL_RUNS):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        wall[name] = float(np.median(seconds))
    timings = found.timings
    print(
        json.dumps(
            {
                "ratio": {name: t.ratio for name, t in timings.items()},
                "half_width_percent": {name: 50 * (t.hi - t.lo) / t.ratio for name, t in timings.items()},
                "seconds": {name: t.seconds for name, t in timings.items()},
                "wall": wall,
                "rounds": found.rounds,
                "noisy": found.noisy,
                "load": os.getloadavg()[0],
            }
        )
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["export", folder]:
            _export(folder)
        case ["measure", folder]:
            _measure(folder)
        case _:
            main()
