"""The trade-off study of "Resource-Efficient Neural Networks for Embedded Systems" on this machine, one command.

A ResNet of three stages on Fashion-MNIST under quantization (8 to 1 bit), pruning (by magnitude and learned),
structured layers and searched mixed policies, one epoch of retraining each; accuracy on the test split, latency of the
deployed file, memory, file size, cycles on a systolic array and on the VTA. Interrupted, it goes on with the same
command.

    python -m benchmarks.tradeoff            # about 20 minutes of one core
    python -m benchmarks.tradeoff --train    # all but the measurements, which want a machine to themselves
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._common import record
from benchmarks.galen import resnet14_s2
from netfit.compress.tradeoff import ALSO, POINTS, SETTINGS, tradeoff
from netfit.report import from_run, write
from netfit.runs import Run
from netfit.targets import parse

RUN = Path("runs/tradeoff")
NET, DATA = "benchmarks.tradeoff:resnet14_s4", "fashion-mnist"
CHOSEN = (*POINTS[:-2], "mixed-0.4", "mixed-0.33", "mixed-0.25")  # around what int8 alone reaches on so small a network
CHOICES = replace(SETTINGS, train_epochs=3, epochs=1, trials=16, finalists=2)


def resnet14_s4(num_classes: int = 10) -> nn.Module:
    """Three stages of 32, 64 and 128 channels behind a stem that shrinks the image to a quarter, as ImageNet's does."""
    model: Any = resnet14_s2(num_classes)
    model.conv1 = nn.Sequential(model.conv1, nn.MaxPool2d(2))
    return model


class Trained(Exception):
    """Raised where the measurements begin."""


def main(words: Sequence[str] = ()) -> None:
    """Do or finish the study, then the table, the page and the file."""
    torch.set_num_threads(1)
    begun = time.monotonic()

    def show(stage: str, facts: dict[str, Any]) -> None:
        if "--train" in words and stage.startswith("measure "):
            raise Trained
        if "step" not in facts or facts["step"] == facts["steps"]:
            kept = {k: round(v, 4) for k, v in facts.items() if k in ("accuracy", "validation", "score", "ratio")}
            print(f"{time.monotonic() - begun:6.0f} s  {stage} {kept}", file=sys.stderr, flush=True)

    with Run.open(RUN, "tradeoff", {"model": NET, "data": DATA, "points": list(CHOSEN)}, 0) as run:
        try:
            result = tradeoff(NET, DATA, parse("host"), run, CHOSEN, ALSO, CHOICES, show)
        except Trained:
            return
    write(from_run(RUN), RUN / "report.html")
    record(
        "tradeoff",
        [_row(point) for point in result["points"]],
        command="python -m benchmarks.tradeoff",
        seed=0,
        findings=result["findings"],
        **{key: result[key] for key in ("model", "data", "fronts", "yardstick", "base", "retraining", "images")},
    )
    for finding in result["findings"]:
        print(f"  {finding['about']}: {finding['text']}")


def _row(point: dict[str, Any]) -> dict[str, Any]:
    costs = point.get("costs", {})
    return {
        "point": point["name"],
        "accuracy": point.get("accuracy"),
        "latency": costs.get("latency"),
        "noisy": point.get("noisy"),
        "macs": point.get("macs"),
        "file_bytes": point.get("file_bytes"),
        "weight_bytes": point.get("weight_bytes"),
        "act_bytes": point.get("act_bytes"),
        "added_bytes": point.get("added_bytes"),
        **{name: point["on"][name]["cycles"] if costs else None for name in ALSO},
        **{f"runs on {name}": point["on"][name]["runs"] if costs else None for name in ALSO},
        "executed": point.get("executed"),
        "failed": point["failed"],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
