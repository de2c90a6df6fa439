"""Tuners on spaces whose exact best is known: how many attempts, invalid ones included, until it is found.

Loop nests of 13 DeepBench convolutions on the simulated VTA, every one simulated once; and kernels that others measured
in full on GPUs. ``python -m benchmarks.tune [seeds]``.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._common import record
from netfit.compile.tune import (
    ModelTuner,
    Outcome,
    RecordedRunner,
    Space,
    Tuner,
    VtaRunner,
    make,
    recorded_space,
    vta_space,
)
from netfit.data import tuning_space
from netfit.errors import DataNotFound
from netfit.targets.vta import Config, Conv

# Input size, channels, filters, taps, stride: numbers 2, 4, 6, 8, 11, 12 and 15 of the device set, and six more.
CONVS = (
    (56, 64, 256, 1, 1), (56, 256, 128, 1, 2), (28, 512, 128, 1, 1), (14, 256, 1024, 1, 1), (14, 1024, 512, 1, 2),
    (7, 512, 512, 3, 1), (7, 2048, 512, 1, 1), (54, 64, 64, 3, 1), (14, 128, 256, 3, 1), (56, 128, 256, 3, 1),
    (28, 256, 512, 3, 1), (28, 192, 32, 5, 1), (14, 512, 48, 5, 1),
)  # fmt: skip
RECORDED = ("convolution_milo/A100", "convolution_milo/A6000", "gemm/RTX_3090", "pnpoly/RTX_3090")
METHODS: dict[str, Callable[[Space, int], Tuner]] = {
    "AutoTVM-like, batch 64": lambda s, seed: ModelTuner(s, seed, 64, "boosted", "penalty", knobs_only=True),
    "validity-driven, same model, batch 64": lambda s, seed: ModelTuner(
        s, seed, 64, "boosted", "static", knobs_only=True, use_estimate=False
    ),
    "same, batch 16": lambda s, seed: ModelTuner(s, seed, 16, "boosted", "static", knobs_only=True, use_estimate=False),
    "forest, hardware features, batch 8": lambda s, seed: ModelTuner(s, seed, 8, use_estimate=False),
    "full method: half of the start estimated": lambda s, seed: ModelTuner(s, seed, 8),
    "learned validity only": lambda s, seed: ModelTuner(s, seed, 16, "forest", "learned"),
    "random, valid": lambda s, seed: make("random", s, seed),
    "genetic": lambda s, seed: make("genetic", s, seed),
}
GOALS = {"validity-driven, same model, batch 64": 0.416, "full method: half of the start estimated": 0.18}


def truth() -> list[tuple[Space, dict[Any, Outcome]]]:
    """Every configuration of the 13 convolutions, simulated."""
    core, found = Config(), []
    for size, c, k, taps, stride in CONVS:
        conv = Conv.of(core, c=c, h=size, w=size, k=k, r=taps, s=taps, stride=stride, padding=(taps - 1) // 2)
        space, runner = vta_space(conv), VtaRunner(conv)
        found.append((space, {p: Outcome("invalid_compile") for p in space.all} | runner.run(space.valid)))
    return found


def attempts(tuner: Tuner, answers: dict[Any, Outcome], goal: float, most: int) -> tuple[int, int, float]:
    """Attempts until the goal is met, invalid ones among them, and seconds the tuner itself took."""
    done = invalid = 0
    spent = 0.0
    while done < most:
        start = time.process_time()
        batch = tuner.ask()
        spent += time.process_time() - start
        if not batch:
            break
        for config in batch:
            done += 1
            seconds = answers[config].seconds
            invalid += seconds is None
            if seconds is not None and seconds <= goal * (1 + 1e-12):
                return done, invalid, spent
        start = time.process_time()
        tuner.tell({config: answers[config] for config in batch})
        spent += time.process_time() - start
    return done, invalid, spent


def compare(problems: list[tuple[Space, dict[Any, Outcome]]], seeds: int, methods: list[str]) -> dict[str, Any]:
    """Per method: (problems, seeds) attempts, invalid ones, and seconds an attempt."""
    found: dict[str, Any] = {}
    for name in methods:
        runs = []
        for space, answers in problems:
            goal = min(o.seconds for o in answers.values() if o.seconds is not None)
            runs.append([attempts(METHODS[name](space, seed), answers, goal, space.size) for seed in range(seeds)])
        found[name] = np.array(runs)
        print(f"  {name}: {found[name][:, :, 0].mean():.1f} attempts", flush=True)
    return found


def rows_of(found: dict[str, Any], base: str) -> list[dict[str, Any]]:
    """The table; ratios are to the first method."""
    rows = []
    reference = found[base][:, :, 0]
    spread = reference.mean(0).std(ddof=1)
    for name, runs in found.items():
        done, seconds = runs[:, :, 0], runs[:, :, 2]
        deviation = done.mean(0).std(ddof=1)
        rows.append({
            "method": name, "attempts": float(done.mean()), "ratio": float(done.sum() / reference.sum()),
            "goal": GOALS.get(name, ""), "std_over_seeds": float(deviation), "std_ratio": float(deviation / spread),
            "invalid": float(runs[:, :, 1].mean()),
            "worst_workload": float((done.mean(1) / reference.mean(1)).max()),
            "cpu_ms_an_attempt": float(1e3 * seconds.sum() / done.sum()),
        })  # fmt: skip
    return rows


def recorded(seeds: int) -> list[dict[str, Any]]:
    """The same on spaces measured on GPUs, whose failures no rule foretells."""
    methods = ["AutoTVM-like, batch 64", "learned validity only", "random, valid"]
    rows = []
    for name in RECORDED:
        try:
            given = tuning_space(name)
        except DataNotFound as e:
            print(e)
            return []
        space, runner = recorded_space(given), RecordedRunner(given)
        answers = dict(runner.run(space.all))
        goal = 1.05 * runner.fastest
        for method in methods:
            runs = np.array([attempts(METHODS[method](space, s), answers, goal, 1500) for s in range(seeds)])
            rows.append({
                "space": name, "points": space.size, "method": method,
                "attempts_within_5_percent": float(runs[:, 0].mean()),
                "std_over_seeds": float(runs[:, 0].std(ddof=1)), "invalid": float(runs[:, 1].mean()),
            })  # fmt: skip
    return rows


def main() -> None:
    """Print and keep both tables."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    problems = truth()
    points = sum(space.size for space, _ in problems)
    found = compare(problems, seeds, list(METHODS))
    rows = rows_of(found, "AutoTVM-like, batch 64")
    record("tune_vta", rows, seeds=seeds, configurations=points, valid=sum(len(s.valid) for s, _ in problems))
    if kept := recorded(min(seeds, 5)):
        record("tune_recorded", kept, seeds=min(seeds, 5))


if __name__ == "__main__":
    main()
