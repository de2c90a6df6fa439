"""The tuner on kernels of this processor, and its memory: ``python -m benchmarks.tune_cpu``.

A space of 2,000 products of matrices is measured in full once; then the tuner is asked how many measurements it needs.
Kernel Tuner tries the same 30 kernels in its own environment (`make peers`), where there is one.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import record
from netfit.compile import ops, tune
from netfit.compile.ops._operator import _kernel
from netfit.compile.tune import Outcome, Records, Space
from netfit.kernels._ops import source

POINTS, CANDIDATES, SEEDS = 2000, 30, 10
PEER = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
_RUN = """
static float tuned(float *unused) {
    static int ready;
    (void)unused;
    if (!ready) op_setup(), ready = 1;
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    op_once();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    return (float)(1e3 * (double)(b.tv_sec - a.tv_sec) + 1e-6 * (double)(b.tv_nsec - a.tv_nsec));
}
"""
_MEMORY = """
import resource, sys, time
from sklearn.ensemble import ExtraTreesRegressor
from netfit.compile.tune import ModelTuner, Outcome, Records, Space
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
if sys.argv[1] == "space":
    space = Space("large", dict.fromkeys("abcdef", tuple(range(1, 11))), lambda c: "odd" if sum(c) % 2 else None)
    tuner = ModelTuner(space)
    for _ in range(4):
        tuner.tell({c: Outcome("ok", 1e-3 * sum(c)) for c in tuner.ask()})
    spent = time.process_time()
else:
    start = time.process_time()
    found = Records(sys.argv[2]).read()
    spent = time.process_time() - start
    assert len(found) == 100_000
print(spent, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def _row(what: str, value: float, goal: float, most: bool = True) -> dict[str, Any]:
    return {"what": what, "value": value, "goal": goal, "held": value <= goal if most else value >= goal}


class Known:
    """Answers from what was measured."""

    def __init__(self, outcomes: dict[Any, Outcome]) -> None:
        self.target, self.outcomes = "known", outcomes

    def run(self, configs: Sequence[Any]) -> dict[Any, Outcome]:
        """The kept outcomes."""
        return {c: self.outcomes[c] for c in configs}


def search() -> list[dict[str, Any]]:
    """Measurements until 97 % of the best of the space, and until the random search gets there."""
    op = ops.Gemm.of(256, 256, 256)
    whole = op.space()
    points = whole.sample(np.random.default_rng(0), POINTS)
    space = Space(f"{op.name} sampled", whole.knobs, whole.why, estimate=whole.estimate, points=points)
    start = time.perf_counter()
    answers = tune.LocalRunner(op, repeats=15, budget_s=0.02).run(points)
    spent = time.perf_counter() - start
    best = min(o.seconds for o in answers.values() if o.seconds is not None)
    rows = []
    for name in ("forest", "random"):
        counts = []
        for seed in range(SEEDS):
            with tempfile.TemporaryDirectory() as folder:
                study = tune.Study(Path(folder) / "r.jsonl", tune.make(name, space, seed), Known(answers))
                study.run(600, stop=lambda p: p.best is not None and p.best <= best / 0.97)
                counts.append(len(study.history))
        goal = 60.0 if name == "forest" else float("inf")
        rows.append(
            _row(f"{name}: measurements to 97 % of the best of {POINTS}, mean of {SEEDS}", np.mean(counts), goal)
        )
        rows.append(_row(f"{name}: the same, most", max(counts), float("inf")))
    default = answers.get(op.default(ops.machine()))
    if default is not None and default.seconds is not None:
        rows.append(_row("untuned kernel, times the best", default.seconds / best, float("inf")))
    return [*rows, _row("wall ms a configuration of the whole space", 1e3 * spent / POINTS, 60)]


def candidates() -> list[dict[str, Any]]:
    """Wall seconds of 30 kernels that were never built before, here and by Kernel Tuner."""
    op = ops.Gemm.of(480, 480, 480)
    configs = op.space().sample(np.random.default_rng(1), CANDIDATES)
    with tempfile.TemporaryDirectory() as folder:
        before, os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME"), folder
        start = time.perf_counter()
        tune.LocalRunner(op, repeats=30, budget_s=0.05).run(configs)
        ours = time.perf_counter() - start
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
    rows = [_row("wall ms a new kernel, built and measured", 1e3 * ours / CANDIDATES, 60)]
    if not PEER.is_file():
        return rows
    common = _kernel(op.files)
    heads = [op.emit(c).removesuffix(common) for c in configs]
    chosen = "".join(f"#{'el' if i else ''}if idx == {i}\n{head}" for i, head in enumerate(heads)) + "#endif\n"
    test = source(*op.files).partition("/* TEST */\n")[2]
    text = f"{chosen}{common}#include <time.h>\n{source('op_inputs.c')}\n{test}{_RUN.replace('static float', 'float')}"
    asked = json.dumps({"source": text, "count": CANDIDATES})
    done = subprocess.run(
        [PEER, Path(__file__).parent / "_kernel_tuner_peer.py"],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"Kernel Tuner did not run: {done.stderr[-300:]}")
        return rows
    theirs = float(done.stdout.splitlines()[-1])
    return [*rows, _row("our seconds over Kernel Tuner's, 30 kernels", ours / theirs, 0.3)]


def memory() -> list[dict[str, Any]]:
    """A space of a million points, and a file of 100,000 records."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.jsonl"
        line = tune.Record("s", "t", (1, 2, 3), Outcome("ok", 1e-3, 1e-3, 0.0), "grid", 0, 0.0, "1").line()
        path.write_text(line * 100_000)
        assert Records(path).path == path
        found = {}
        for what in ("space", "records"):
            command = [sys.executable, "-c", _MEMORY, what, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[what] = [float(v) for v in done.stdout.split()]
    return [
        _row("MB that a space of 1,000,000 points adds to its process", found["space"][2] - found["space"][1], 200),
        _row("MB of the whole process, torch and scikit-learn in it", found["space"][2], 200),
        _row("CPU s to load 100,000 records", found["records"][0], 2),
        _row("MB they add", found["records"][2] - found["records"][1], float("inf")),
    ]


def main() -> None:
    """Print and keep one row per figure."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    record("tune_cpu", [*memory(), *candidates(), *search()], points=POINTS, seeds=SEEDS)


if __name__ == "__main__":
    main()
