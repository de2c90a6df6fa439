"""One search on four targets: does the policy found for a target beat those found for others there? (acceptance 14)

Channels only, in fp32, so that nothing but the shape of the hardware tells the targets apart: multiply-accumulates know
no shape, arrays of 16 and 32 columns want multiples of them, the processor has its own staircase.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks._common import record
from benchmarks.galen import NETS
from netfit.compress import Settings, compress
from netfit.errors import JobError
from netfit.runs import Run
from netfit.targets import parse

TARGETS = ("host", "macs", "systolic:16x16", "systolic:32x32")


def main(words: Sequence[str] = ()) -> None:
    """Do or finish the job, then the table: rows are where it runs, columns what it was found for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.specialisation")
    parser.add_argument("--net", choices=sorted(NETS), default="resnet14-s2")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--train-epochs", type=int, default=3)
    parser.add_argument("--run", type=Path, default=Path("runs/specialisation"))
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    settings = Settings(
        trials=options.trials, methods=("prune",), epochs=1, finalists=1, also=TARGETS[1:],
        train_epochs=options.train_epochs,
    )  # fmt: skip
    arguments = {"target": TARGETS[0], "net": options.net, "latency": options.latency, "settings": repr(settings)}
    if not (options.run / "result.json").exists():
        try:
            with Run.open(options.run, "compress", arguments, 0) as run:
                compress(NETS[options.net], options.data, parse(TARGETS[0]), options.latency, run, settings)
        except JobError:
            if not (options.run / "result.json").exists():
                raise
    also = json.loads((options.run / "result.json").read_text())["also"]
    rows = [{"runs on, found for": on, **{t: also["score"][on][t] for t in TARGETS}} for on in TARGETS]
    record(
        "specialisation",
        rows,
        net=options.net,
        latency=options.latency,
        trials=options.trials,
        diagonal_best=also["diagonal_best"],
        held={"diagonal best for >= 3 of 4": len(also["diagonal_best"]) >= 3},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
