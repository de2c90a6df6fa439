"""Compress a network for a systolic array that does not exist, 13 rows by 7 columns.

Widths go down where the simulated array saves most cycles for the accuracy lost; the narrow network is retrained.
"""

import argparse
from typing import Any

import torch

from netfit import data, models
from netfit.compress import Prune, plan_channels
from netfit.search import greedy
from netfit.surgery import Policy, apply
from netfit.targets import parse
from netfit.train import evaluate, fit, recalibrate

FIT = {"lr": 0.1, "batch_size": 32, "weight_decay": 5e-4, "seed": 0, "precision": "fp32"}


def main(array: str = "13x7", goal: float = 0.4, epochs: int = 3) -> dict[str, Any]:
    """Train, search, retrain; returns widths, the share of the cycles that is left, and both accuracies."""
    target, columns = parse(f"systolic:{array}"), int(array.split("x")[1])
    (x, y), test = data.load("digits").tensors(), data.load("digits", "test").tensors()
    torch.manual_seed(0)
    model = models.build("digits-cnn")
    fit(model, (x, y), epochs=epochs, **FIT)

    def narrowed(widths: dict[str, int]) -> torch.nn.Module:
        return apply(model, Policy({name: Prune(keep=width) for name, width in widths.items()}), x[:2])

    def judge(widths: dict[str, int]) -> tuple[float, float]:
        small = narrowed(widths)
        recalibrate(small, [(x[:256],)])
        return evaluate(small, x[256:512], y[256:512]), cycles(small)

    def cycles(network: torch.nn.Module) -> float:
        return float(target.cost(network, x[:1]).total().time_s)

    sizes = {g.name: g.size for g in plan_channels(model, x[:2]) if not g.frozen}
    steps = {name: list(range((size - 1) // columns * columns, 0, -columns)) for name, size in sizes.items()}
    visited = greedy(sizes, steps, judge, goal * cycles(model))
    widths = min((point for point in visited if point.taken), key=lambda point: point.cost).params
    small = narrowed(widths)
    fit(small, (x, y), epochs=epochs, **FIT)
    found = {"cycles": cycles(small) / cycles(model), "before": evaluate(model, *test), "after": evaluate(small, *test)}
    print("{cycles:.3f} of the cycles, accuracy {before:.3f} -> {after:.3f}".format(**found), "with", widths)
    return {"widths": widths, **found}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--array", default="13x7")
    options.add_argument("--goal", type=float, default=0.4)
    options.add_argument("--epochs", type=int, default=3)
    main(**vars(options.parse_args()))
