"""The comparison of "Towards Hardware-Specific Automatic Compression of Neural Networks": prune, quantize, or both?

One ResNet on Fashion-MNIST, three ways to compress it, three latencies measured on this machine, each a complete job:
search, retraining, export, test accuracy of the deployed file. Interrupted, it goes on with the same command; finished
jobs are only read.

    python -m benchmarks.galen                        # stem of stride 2, little training: about 40 minutes on one core
    python -m benchmarks.galen --full --seeds 0,1,2   # the published shape, full training: days on one core
    python -m benchmarks.galen --sampler ddpg         # Galen's own agents instead of netfit's search
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._common import RESULTS, record
from netfit.compress import Settings, compress
from netfit.errors import JobError
from netfit.io import read_json, write_bytes, write_json
from netfit.models import build
from netfit.report import plots
from netfit.runs import Run
from netfit.targets import parse

METHODS = {"prune": ("prune",), "quantize": ("quantize",), "joint": ("prune", "quantize")}
ALLOWED = {0.2: 0.2, 0.1: 0.5, 0.065: 1.0}  # points of accuracy that may be lost at each latency
QUICK = {"net": "resnet18-s2", "trials": 24, "train_epochs": 2, "epochs": 1, "finalists": 2}
FULL = {"net": "resnet18", "trials": 150, "train_epochs": None, "epochs": None, "finalists": 10}
SHARED = ("base", "steps", "yardstick")  # stages that do not depend on the latency


def resnet18_s2(num_classes: int = 10) -> nn.Module:
    """ResNet-18 for grey images whose stem has stride 2: a fifth of the work, the same widths."""
    model = build("resnet18", num_classes=num_classes, in_shape=(1, 28, 28))
    model.conv1.stride = (2, 2)
    return model


def resnet14_s2(num_classes: int = 10) -> nn.Module:
    """Three stages of 32, 64 and 128 channels, stem of stride 2: small enough to try things out."""
    from netfit.models._resnet import ResNet

    model = ResNet((32, 64, 128), 2, num_classes, 1)
    model.conv1.stride = (2, 2)
    return model


NETS = {
    "resnet18": "resnet18",
    "resnet18-s2": "benchmarks.galen:resnet18_s2",
    "resnet14-s2": "benchmarks.galen:resnet14_s2",
}


def main(words: Sequence[str] = ()) -> None:
    """Do or finish every job, then the table, the plot and the file."""
    options = _options(words)
    torch.set_num_threads(1)
    rows = [
        _row(options, method, goal, seed)
        for seed in options.seeds
        for goal in options.targets
        for method in options.methods
    ]
    name = f"galen_{options.net}"
    record(
        name,
        [{k: v for k, v in row.items() if k != "yardstick"} for row in rows],
        net=options.net,
        data=options.data,
        sampler=options.sampler,
        trials=options.trials,
        seeds=list(options.seeds),
        command=f"python -m benchmarks.galen {' '.join(words)}".strip(),
        yardstick=rows[0]["yardstick"],
        held=_held(rows),
    )
    points = {m: [(r["ratio"], 100 * r["accuracy"]) for r in rows if r["method"] == m] for m in options.methods}
    base = [(1.0, 100 * statistics.fmean(r["base"] for r in rows))]
    drawing = plots.scatter_pareto({**points, "uncompressed": base}, ylabel="test accuracy, %", log=True)
    write_bytes(RESULTS / f"{name}.svg", drawing.encode())


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.galen", description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the published shape with full training")
    parser.add_argument("--net", choices=sorted(NETS))
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--target", default="host")
    parser.add_argument("--run", type=Path, help="directory of all jobs")
    parser.add_argument("--targets", type=_numbers, default=(0.2, 0.1, 0.065), help="latencies, such as 0.2,0.1")
    parser.add_argument("--methods", type=lambda t: t.split(","), default=list(METHODS))
    parser.add_argument("--seeds", type=lambda t: tuple(map(int, t.split(","))), default=(0,))
    parser.add_argument("--sampler", default="auto", choices=("auto", "tpe", "random", "nsga2", "ddpg"))
    for name in ("trials", "train-epochs", "epochs", "finalists"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args(words)
    for name, value in (FULL if options.full else QUICK).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.run = options.run or Path("runs") / ("galen" if options.full else "galen-quick")
    return options


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def _row(options: argparse.Namespace, method: str, goal: float, seed: int) -> dict[str, Any]:
    result = _job(options, method, goal, seed)
    base, final = result["base"], result["final"]
    return {
        "seed": seed,
        "goal": goal,
        "method": method,
        "met": final["met"],
        "ratio": final["ratio"],
        "base": base["accuracy"],
        "accuracy": final["accuracy_deployed"],
        "lost": round(100 * (base["accuracy"] - final["accuracy_deployed"]), 2),
        "macs": final["macs"] / base["macs"],
        "trials": len(result["trials"]),
        "skipped": (result["predictor"] or {}).get("skipped"),
        "mape": (result["predictor"] or {}).get("mape"),
        "substituted": len(result["substituted"]),
        "noisy": final["noisy"],
        "minutes": round(result["minutes"], 1),
        "yardstick": result["yardstick"],
    }


def _job(options: argparse.Namespace, method: str, goal: float, seed: int) -> dict[str, Any]:
    """The result of one job, done now or before."""
    place = options.run / f"seed{seed}" / f"{method}-{goal:g}"
    if not (place / "minutes.json").exists():
        agent = "ddpg-" + method if options.sampler == "ddpg" else options.sampler
        settings = Settings(
            trials=options.trials, sampler=agent, methods=METHODS[method], epochs=options.epochs,
            finalists=options.finalists, train_epochs=options.train_epochs,
        )  # fmt: skip
        arguments = {"net": options.net, "data": options.data, "target": options.target, "latency": goal}
        begun = time.monotonic()
        print(f"{place}", file=sys.stderr, flush=True)
        try:
            with Run.open(place, "compress", arguments | asdict(settings), seed) as run:
                _share(run, place.parent, method)
                compress(NETS[options.net], options.data, parse(options.target), goal, run, settings, _say)
        except JobError as e:  # a goal that cannot be met is a result
            if not (place / "result.json").exists():
                raise
            print(f"  {e}", file=sys.stderr, flush=True)
        write_json(place / "minutes.json", (time.monotonic() - begun) / 60)
    return json.loads((place / "result.json").read_text()) | {"minutes": read_json(place / "minutes.json")}


def _share(run: Run, seeds: Path, method: str) -> None:
    """Take over what another job of this seed has done already: its network, its yardstick, its channel sweep."""
    for stage in SHARED:
        for other in sorted(seeds.iterdir()):
            same = stage != "steps" or other.name.startswith(method)
            done = other / "stages" / f"{stage}.json"
            if other == run.path or not same or not done.exists() or (run.path / "stages" / f"{stage}.json").exists():
                continue
            if stage == "base" and not (run.path / "base").exists():
                shutil.copytree(other / "base", run.path / "base")
            (run.path / "stages").mkdir(exist_ok=True)
            shutil.copy(done, run.path / "stages" / done.name)


def _say(stage: str, facts: dict[str, Any]) -> None:
    if "step" not in facts or facts["step"] == facts["steps"]:
        words = {k: round(v, 4) if isinstance(v, float) else v for k, v in facts.items()}
        print(f"  {stage} {words}", file=sys.stderr, flush=True)


def _held(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """The acceptance figures that these rows can say something about, each a mean over the seeds."""

    def mean(method: str, goal: float, key: str) -> float | None:
        found = [r[key] for r in rows if r["method"] == method and r["goal"] == goal]
        return statistics.fmean(found) if found else None

    held = {}
    for goal, allowed in ALLOWED.items():
        lost, ratio = mean("joint", goal, "lost"), mean("joint", goal, "ratio")
        if lost is not None and ratio is not None:
            held[f"joint <= {goal:g} with <= {allowed:g} points lost"] = ratio <= goal and lost <= allowed
            for single in ("prune", "quantize"):
                other, met = mean(single, goal, "lost"), mean(single, goal, "met")
                if other is not None and met is not None:
                    held[f"joint better than {single} at {goal:g}"] = met < 1 or lost <= other
    return held


if __name__ == "__main__":
    main(sys.argv[1:])
