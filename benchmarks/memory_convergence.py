"""Does it still learn? Accuracy, peak and step time of training with compressed activations, at equal epochs.

CIFAR-10, ResNet-20 and a ResMLP, three seeds; plain, the papers' pool2 and bsr10, and netfit's default plan. Every
finished training is kept in the run directory and an unfinished one goes on after its last epoch, so the same command
continues: ``python -m benchmarks.memory_convergence --run runs/convergence --subset 10000 --epochs 10``. What is still
missing is left out of the table; ``--table`` only prints it. The step's time is the CPU seconds of the fastest epoch,
which neighbours on the machine disturb least.
"""

import argparse
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks._common import record
from netfit import data
from netfit.memory import SaveAs, TrainingStep, measure, plan, tune_allocator
from netfit.models import build, recipe
from netfit.runs import Run
from netfit.surgery import Policy, apply
from netfit.train import evaluate, fit

NETS = ("resnet20", "resmlp")
WAYS = ("plain", "pool2", "bsr10", "plan")
SEEDS = 3


def one(run: Run, net: str, way: str, seed: int, epochs: int, subset: int) -> dict[str, Any]:
    """Train one network in one way; returns accuracy and what a step took."""
    train, test = data.load("cifar10", "train"), data.load("cifar10", "test")
    torch.manual_seed(seed)
    model, r = build(net).train(), recipe(net)
    x, y = train.tensors(range(min(subset, len(train))))
    sample = TrainingStep(model, x[: r.batch_size], y[: r.batch_size], F.cross_entropy, _optimizer(model))
    policy = {"pool2": Policy({"*": SaveAs("pool2")}), "bsr10": Policy({"*": SaveAs("bsr10")})}.get(way)
    if way == "plan":
        words = run.stage(f"words-{net}-{seed}", lambda: dict(plan(sample, seed=seed).words))
        policy = Policy({name: SaveAs(word) for name, word in words.items()})
    found = measure(sample, policy=policy, repeats=0)
    trained = model if policy is None else apply(model, policy, x[:2])
    marks = [time.process_time()]  # CPU seconds, at the start and after every epoch
    history = fit(
        trained, (x, y), epochs=epochs, lr=r.lr, batch_size=r.batch_size, weight_decay=r.weight_decay, seed=seed,
        augment=r.augment, precision="fp32", checkpoint=run.path / f"fit-{net}-{way}-{seed}",
        progress=lambda facts: _say(f"{net} {way} seed {seed}", facts, marks),
    )  # fmt: skip
    accuracy = evaluate(trained, *test.tensors())
    return {
        "accuracy": accuracy, "loss": history.loss[-1], "peak": found.peak, "process_peak": found.process_peak,
        "epoch_s": min((b - a for a, b in pairwise(marks)), default=None),
    }  # fmt: skip


def _optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def _say(what: str, facts: dict[str, Any], marks: list[float]) -> None:
    if "seconds" in facts:  # the last report of an epoch
        marks.append(time.process_time())
        print(f"{what}: epoch {facts['epoch']}/{facts['epochs']}, loss {facts['loss']:.3f}", flush=True)


def table(results: dict[tuple[str, str, int], dict[str, Any]], **meta: Any) -> None:
    """One row per network and way: mean over the seeds that are there, ratios to plain."""
    rows = []
    for net in NETS:
        plain = [r for (n, w, _), r in results.items() if (n, w) == (net, "plain")]
        for way in WAYS:
            mine = [r for (n, w, _), r in results.items() if (n, w) == (net, way)]
            if not mine or not plain:
                continue
            accuracy = [100 * r["accuracy"] for r in mine]
            times = [min(r["epoch_s"] for r in some if r["epoch_s"]) for some in (mine, plain)]
            rows.append({
                "network": net, "kept as": way, "seeds": len(mine), "accuracy %": statistics.mean(accuracy),
                "spread": max(accuracy) - min(accuracy), "peak MB": statistics.mean(r["peak"] for r in mine) / 1e6,
                "peak ratio": statistics.mean(r["peak"] for r in mine) / statistics.mean(r["peak"] for r in plain),
                "process peak MB": statistics.mean(r["process_peak"] for r in mine) / 1e6,
                "step ratio": times[0] / times[1],
            })  # fmt: skip
    if rows:
        record("memory_convergence", rows, **meta)


def main() -> None:
    """Train what is missing, one seed of everything before the next, and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--run", type=Path, default=Path("runs/memory-convergence"))
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--subset", type=int, default=10_000, help="training images")
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    options.add_argument("--table", action="store_true", help="train nothing, print what is there")
    o, _ = options.parse_known_args()
    torch.set_num_threads(1)
    tune_allocator()  # a measured child inherits this process's heap, and resident sets would count its holes
    results: dict[tuple[str, str, int], dict[str, Any]] = {}
    with Run.open(o.run, "memory-convergence", {"epochs": o.epochs, "subset": o.subset}, 0, allow_drift=True) as run:
        for seed in range(o.seeds):
            for net in o.nets:
                for way in WAYS:
                    name = f"{net}-{way}-{seed}"
                    if o.table and not (run.path / "stages" / f"{name}.json").exists():
                        continue
                    results[net, way, seed] = run.stage(
                        name, lambda n=net, w=way, s=seed: one(run, n, w, s, o.epochs, o.subset)
                    )
        table(results, epochs=o.epochs, images=o.subset, data="cifar10")


if __name__ == "__main__":
    main()
