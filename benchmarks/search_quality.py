"""How good is the search at equal trials, and how far are its cheap answers from the truth? (acceptance 6 and 8)

`samplers`: the best score without training that each sampler finds for one network at one latency, with the same
number of trials, on the same clock; Galen's joint agent gets twice as many. Torch-Pruning's global ranking is given as
many cuts, in int8 as the others.
`evaluator`: random candidates, each retrained: does the score before training rank them as the accuracy after it?
`predictor`: its error on random candidates after a given number of measurements.

    python -m benchmarks.search_quality samplers --seeds 0,1,2    # on a quiet core
    python -m benchmarks.search_quality evaluator predictor

Interrupted, it goes on with the same command.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import record
from benchmarks.galen import NETS
from benchmarks.peers_compress import judged, torch_pruning_cuts
from netfit.compress import Settings
from netfit.compress._evaluate import Evaluator
from netfit.compress._job import Job
from netfit.compress._predict import Predictor
from netfit.compress._search import Search
from netfit.runs import Run
from netfit.search import Memo, Row
from netfit.surgery import load, open_model
from netfit.targets import parse
from netfit.train import evaluate

NET, DATA, GOAL = "resnet14-s2", "fashion-mnist", 0.25
TRIALS = {"auto": 150, "random": 150, "nsga2": 150, "ddpg-joint": 300}
RETRAINED, MEASURED, GUESSED = 20, 30, 60
RETRAIN_EPOCHS = 1


def main(words: Sequence[str] = ()) -> None:
    """Do or finish the named parts, then their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_quality")
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", type=lambda t: tuple(map(int, t.split(","))), default=(0, 1, 2))
    parser.add_argument("--train-epochs", type=int, default=3)
    parser.add_argument("--run", type=Path, default=Path("runs/search-quality"))
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    settings = Settings(trials=max(TRIALS.values()), epochs=RETRAIN_EPOCHS, train_epochs=options.train_epochs)
    arguments = {"net": NET, "data": DATA, "latency": GOAL, "train_epochs": options.train_epochs}
    with Run.open(options.run, "search-quality", arguments, 0) as run:
        job = Job(NETS[NET], DATA, parse("host"), GOAL, run, settings, _say)
        for part in options.parts:
            rows, held = PARTS[part](Bench(job, options.seeds))
            record(f"search_quality_{part}", rows, net=NET, data=DATA, goal=GOAL, held=held)


class Bench:
    """What every part stands on: the trained network, its space with the steps that pay, evaluator and clock."""

    def __init__(self, job: Job, seeds: Sequence[int]) -> None:
        self.job, self.seeds = job, seeds
        model, _ = open_model(job.spec, num_classes=job.classes, in_shape=job.shape)
        job._trained(model)
        self.base = load(job.run.path / "base", model=model).model
        self.gauge = job.meter(self.base, job.target)
        self.space = job.stepped(job.space(self.base, job.target), self.base, self.gauge, job.target)
        self.evaluator: Evaluator = job.evaluator(self.base, self.space)

    def search(self, sampler: str, seed: int) -> Search:
        """A search in a folder of its own."""
        folder = self.job.run.path / f"{sampler}-{seed}"
        folder.mkdir(exist_ok=True)
        return self.job.search(self.evaluator, self.gauge, self.job.target, folder, sampler=sampler, seed=seed)


Table = tuple[list[dict[str, Any]], dict[str, bool]]


def samplers(bench: Bench) -> Table:
    """Best score within the goal, per sampler and seed."""
    best: dict[str, list[float]] = {}
    for seed in bench.seeds:
        for sampler, trials in TRIALS.items():
            found = [r.value or 0.0 for r in bench.search(sampler, seed).run(trials) if r.feasible]
            best.setdefault(sampler, []).append(max(found, default=0.0))
            _say(sampler, {"seed": seed, "best": best[sampler][-1]})
    theirs = _torch_pruning(bench)
    rows = [
        {"sampler": s, "trials": TRIALS[s], "mean score": statistics.fmean(v), "scores": v} for s, v in best.items()
    ]
    rows.append({"sampler": "torch-pruning", "trials": TRIALS["auto"], "mean score": theirs, "scores": [theirs]})
    ours = statistics.fmean(best["auto"])
    return rows, {
        "auto >= 0.82": ours >= 0.82,
        "auto >= random + 0.10": ours >= statistics.fmean(best["random"]) + 0.10,
        "auto >= torch-pruning + 0.10": ours >= theirs + 0.10,
        "joint agent >= 0.70": statistics.fmean(best["ddpg-joint"]) >= 0.70,
    }


def _torch_pruning(bench: Bench) -> float:
    """The best score of Torch-Pruning's cuts within the goal; it draws nothing at random, so one seed is all."""
    job = bench.job
    memo, place = Memo(job.run.path / "torch-pruning.db"), job.run.path / "torch-pruning"
    found = []
    for name, make in torch_pruning_cuts(bench.base, job.example[0], TRIALS["auto"]):
        found.append(memo.call([name], lambda make=make: judged(make(), place, job, bench.evaluator, bench.gauge)))
    limit = job.goal * bench.gauge.margin
    return max((f["score"] for f in found if f["cost"]["ratio"] <= limit), default=0.0)


def evaluator(bench: Bench) -> Table:
    """Rank correlation of the score without training and the held-out accuracy after an epoch of retraining."""
    from scipy.stats import spearmanr

    job = bench.job
    ladder = job.ladder()
    tried = [r for r in bench.search("random", 0).run(TRIALS["random"]) if r.value]
    # Spread over the scores: candidates that are no better than chance have no rank among themselves.
    ranked = sorted(tried, key=lambda r: r.value or 0.0)
    chosen = [ranked[round(i * (len(ranked) - 1) / (RETRAINED - 1))] for i in range(RETRAINED)]
    rows = []
    for row in chosen:

        def retrained(row: Row = row) -> float:
            model = bench.evaluator.build(bench.space.candidate(row.params))
            ladder._retrain(bench.base, model, job.train_set.tensors(), RETRAIN_EPOCHS, None, f"candidate {row.number}")
            return evaluate(model, *job.held)

        after = job.run.stage(f"candidate-{row.number}", retrained)
        rows.append({"trial": row.number, "before": row.value, "after": after, "ratio": row.attrs["cost"]["ratio"]})
        _say("candidate", rows[-1])
    rank = float(spearmanr([r["before"] for r in rows], [r["after"] for r in rows]).statistic)
    rows.append({"trial": "rank correlation", "before": rank, "after": None, "ratio": None})
    return rows, {"spearman >= 0.9": rank >= 0.9}


def predictor(bench: Bench) -> Table:
    """Mean error of the guesses for candidates it has not seen."""
    tried = bench.search("random", 0).run(TRIALS["random"])
    seen, rest = tried[:MEASURED], tried[MEASURED : MEASURED + GUESSED]
    guesser = Predictor(bench.space)
    errors = []
    for row in rest:
        guess, cost = guesser.guess(bench.space.candidate(row.params), seen), row.attrs["cost"]["ratio"]
        errors.append(abs(guess.ratio / cost - 1) if guess else 1.0)
    runtime = str(bench.gauge.runtime)
    limit = 0.07 if "openvino" in runtime else 0.10
    mape = statistics.fmean(errors)
    rows = [{"runtime": runtime, "measured": len(seen), "guessed": len(rest), "mape": mape, "worst": max(errors)}]
    return rows, {f"mape <= {limit:g}": mape <= limit}


def _say(stage: str, facts: dict[str, Any]) -> None:
    if "step" not in facts or facts["step"] == facts["steps"]:
        print(f"  {stage} {facts}", file=sys.stderr, flush=True)


PARTS = {"samplers": samplers, "evaluator": evaluator, "predictor": predictor}


if __name__ == "__main__":
    main(sys.argv[1:])
