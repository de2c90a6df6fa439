"""The trade-off study: one network and its data under every family of methods, all retrained alike.

"Resource-Efficient Neural Networks for Embedded Systems" (2024) compares quantization, pruning and structural
efficiency, and concludes that the hardware decides which of them pays. This is that comparison as one job: every point
is a complete compression job in a directory of its own, timed as the file that would be deployed, and costed on
further targets as well.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from netfit.errors import ConfigError, JobError, NetfitError, UnsupportedLayerError
from netfit.runs import Run
from netfit.search import pareto_mask
from netfit.surgery import Quantization, plain
from netfit.targets import Target, parse
from netfit.workload import trace

from ._cost import Meter
from ._families import check_precision, family
from ._findings import findings
from ._found import Found
from ._job import Job, Progress
from ._settings import Settings
from ._space import SearchSpace

__all__ = ["ALSO", "POINTS", "SETTINGS", "tradeoff"]

POINTS = (
    "uniform-fp32", "uniform-bf16", "uniform-int8", "uniform-w4a4", "uniform-w2a2", "uniform-w1a1",
    "magnitude-0.25", "magnitude-0.5", "magnitude-0.75", "learned-0.5", "magnitude-0.5+int8", "learned-0.5+int8",
    "butterfly", "monarch", "low_rank", "mixed-0.5", "mixed-0.25",
)  # fmt: skip
ALSO = ("systolic:32x32", "vta")
SETTINGS = Settings(trials=24, finalists=3)
MIXED = "mixed"
# What a method may fail with and the study goes on: it cannot be done to this network, or not run on this target.
REFUSALS = (ConfigError, UnsupportedLayerError, JobError)


@dataclass(frozen=True)
class Point:
    """One way to compress the network.

    Attributes:
        name: as asked for.
        group: what kind of method it is.
        goal: latency ratio that a search shall meet; 1 for the others.
        family: the classic method; None for a search.
    """

    name: str
    group: str
    goal: float = 1.0
    family: str | None = None

    @property
    def word(self) -> str:
        """Its name as a folder's."""
        return re.sub(r"[^A-Za-z0-9._-]", "-", self.name)


def tradeoff(
    model: str,
    data: str,
    target: Target,
    run: Run,
    points: Sequence[str] = POINTS,
    also: Sequence[str] = ALSO,
    settings: Settings = SETTINGS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compress a network in many ways, retrain all of them alike, and set accuracy against every cost.

    All training comes first and all measurements after it, so that the files are timed by one machine in one state.

    Args:
        model: built-in name, factory, or saved artifact.
        data: name of a data set.
        target: where the networks run.
        run: directory of the study; ``points/`` in it holds a complete job for each point.
        points: families (see `family_policy`; pruning with a share), and ``"mixed-<ratio>"`` for the policy that a
            search finds for a latency.
        also: further targets that every network is costed on.
        settings: what the jobs have in common.
        progress: called with a stage name and its numbers.

    Returns:
        What ``result.json`` holds: one row a point, the points that no other one beats by cost, and findings.

    Raises:
        ConfigError: an argument cannot be used.
        JobError: not one of the points could be measured.
    """
    chosen = [_point(name) for name in points]
    if len({p.word for p in chosen}) < len(chosen) or not chosen:
        raise ConfigError(f"points of a study are named once each, and there is at least one: {', '.join(points)}")
    others = {text: parse(text) for text in also}
    show = progress or (lambda stage, facts: None)
    job = Job(model, data, target, 1.0, run, replace(settings, family=None, also=()), show)
    space, base, gauge = job.prepared()
    original = {name: _cost(other, base, job.example) for name, other in others.items()}
    made: dict[str, Found] = {}

    def train(p: Point) -> dict[str, str | None]:
        try:
            made[p.name] = _found(job, p, space, base, gauge)
        except REFUSALS as e:
            return {"failed": str(e)}
        return {"failed": None}

    def measure(p: Point) -> dict[str, Any]:
        show(f"measure {p.name}", {})
        if failed := trained[p.name]["failed"]:
            return {"failed": failed}
        try:
            found = made.pop(p.name, None) or _found(job, p, space, base, gauge)
            return {"failed": None} | _measured(job, p, found, base, gauge, others)
        except REFUSALS as e:
            return {"failed": str(e)}

    trained = {p.name: run.stage(f"train-{p.word}", partial(train, p)) for p in chosen}
    rows = [run.stage(f"point-{p.word}", partial(measure, p)) | {"name": p.name, "group": p.group} for p in chosen]
    if all(row["failed"] for row in rows):
        raise JobError(f"no point could be measured; {rows[0]['name']}: {rows[0]['failed']}")
    for row in rows:
        if not row["failed"]:
            _relate(row, original)
    result = _result(job, rows, original, base, gauge)
    run.write_result(result)
    return result


def _point(name: str) -> Point:
    """The point behind a name; refuses what would only fail after the training."""
    word, _, ratio = name.partition("-")
    if word == MIXED:
        try:
            goal = float(ratio)
        except ValueError:
            goal = 0.0
        if not 0 < goal < 1:
            raise ConfigError(f"point {name!r}: {ratio!r} is no part of the latency, such as {MIXED}-0.25")
        return Point(name, "mixed", goal)
    found = family(name)
    if found.prunes and found.removes is None:
        raise ConfigError(f"point {name!r} needs the share of the channels it removes, such as {name}-0.5")
    if found.replaces is not None:
        return Point(name, "structured", family=name)
    if found.prunes:
        return Point(name, "pruning" + (f" and {p}" if (p := found.precision) != "fp32" else ""), family=name)
    return Point(name, "quantization", family=name)


def _part(job: Job, point: Point) -> Job:
    """A job for one point in a run of its own. Whether the machine is still the same, the study's run has checked."""
    settings = replace(job.settings, family=point.family)
    arguments = {"model": job.spec, "data": job.data, "target": job.name, "latency": point.goal, **asdict(settings)}
    place = job.run.path / "points" / point.word
    run = Run.open(place, "compress", arguments, job.run.seed, allow_drift=True)
    return job.part(run, point.goal, settings, lambda stage, facts: job.progress(f"{point.name}: {stage}", facts))


def _found(job: Job, point: Point, space: SearchSpace, base: nn.Module, gauge: Meter) -> Found:
    """The network of a point, retrained now or before.

    Raises:
        JobError: a search found nothing within its latency; what it found instead was not retrained.
    """
    part = _part(job, point)
    with part.run:
        found = part.found(space, base, gauge)
    assert found is not None  # only a joined run has none
    if point.family is None and not found.history:
        nearest = min(float(row.attrs["cost"]["ratio"]) for row in found.rows)
        raise JobError(f"a latency of {point.goal:g} is not reachable here, the nearest is {nearest:.3f}")
    return found


def _measured(
    job: Job, point: Point, found: Found, base: nn.Module, gauge: Meter, others: Mapping[str, Target]
) -> dict[str, Any]:
    """The numbers of a point: of its deployed file, and what its network costs elsewhere."""
    part = _part(job, point)
    with part.run:
        final = part.shipped(base, gauge, found)["final"]
    same = ("ratio", "ratio_lo", "ratio_hi", "latency_s", "noisy", "macs", "params", "weight_bytes")
    return {key: final[key] for key in same} | {
        "accuracy": final["accuracy_deployed"],
        "accuracy_torch": final["accuracy"],
        "file_bytes": final["bytes"] if "executed" in final else None,
        "act_bytes": _activations(found.network, job.example),
        "added_bytes": final.get("added_bytes"),
        "asked": final.get("asked", {}),
        "executed": final.get("executed", {}),
        "on": {name: _cost(target, found.network, job.example) for name, target in others.items()},
        "run": f"points/{point.word}",
    }


def _activations(network: nn.Module, example: tuple[torch.Tensor, ...]) -> int:
    """Most bytes of activations alive at one time; bits that no kernel has are those of the int8 that runs them."""
    state, workload = Quantization.of(network), trace(plain(network), *example)
    if state is None:
        return workload.peak_act_bytes()
    bits = {key: max(8, state.plan.bits[head]) for key, head in state.plan.points.items()}
    return workload.peak_act_bytes(bits | {(name, 0): 16 for name in state.bf16})


def _cost(target: Target, network: nn.Module, example: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """What a network costs on a target that computes; its structure's cost where its precision does not run there."""
    state, bare = Quantization.of(network), plain(network)
    asked, why = state.asked() if state else {}, None
    try:
        for op in trace(bare, *example):
            if op.kind in ("conv1d", "conv2d", "conv3d", "linear"):
                check_precision(target, op, asked.get(op.name, "fp32"))
    except ConfigError as e:
        why = str(e)
    try:
        table = target.cost(network if why is None else bare, *example)
    except NetfitError as e:
        return {"runs": False, "why": str(e), "time_s": None, "cycles": None}
    seconds, beside = float(table.total().time_s), (table.breakdown or {}).get("host")
    clock = target.fingerprint().get("config", {}).get("clock_hz")
    computing = seconds - (0.0 if beside is None else float(beside.sum()))
    cycles = None if clock is None else round(computing * clock)
    return {"runs": why is None, "why": why, "time_s": seconds, "cycles": cycles}


def _relate(row: dict[str, Any], original: Mapping[str, dict[str, Any]]) -> None:
    """Add ratios to the uncompressed network's cost (of cycles where a target has a clock), and all costs of a kind.

    A cost is None on a target that cannot run the network as it was trained.
    """
    for name, cost in row["on"].items():
        key = "time_s" if cost["cycles"] is None else "cycles"
        cost["ratio"] = cost[key] / original[name][key] if cost[key] and original[name][key] else None
    row["costs"] = {"latency": row["ratio"], "file": row["file_bytes"] or row["weight_bytes"]}
    row["costs"] |= {name: cost["ratio"] if cost["runs"] else None for name, cost in row["on"].items()}


def _result(
    job: Job, rows: list[dict[str, Any]], original: dict[str, Any], base: nn.Module, gauge: Meter
) -> dict[str, Any]:
    workload = trace(base, *job.example)
    totals = workload.totals()
    facts = {"macs": totals["macs"], "params": totals["params"], "weight_bytes": totals["weight_bytes"]}
    accuracy = job.base_accuracy(base)
    fronts = _fronts(rows)
    return {
        "kind": "tradeoff", "model": job.spec, "data": job.data, "target": job.name, "also": list(original),
        "base": {"accuracy": accuracy, "act_bytes": workload.peak_act_bytes(), "on": original} | facts,
        "yardstick": gauge.describe(),
        "points": rows,
        "fronts": fronts,
        "findings": findings(rows, fronts, accuracy, job.name),
        "retraining": {"epochs": job.epochs, "lr": job.recipe.lr / 2, "batch_size": job.recipe.batch_size,
                       "taught": False},
        "images": {"training": len(job.train_set), "held_out": len(job.held[0]), "test": len(job.test_set)},
    }  # fmt: skip


def _fronts(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of the points that no other one beats in accuracy and in one cost, by cost, the cheapest first."""
    done = [row for row in rows if not row["failed"]]
    fronts = {}
    for axis in done[0]["costs"]:
        able = sorted((row["costs"][axis], row["name"], row["accuracy"]) for row in done if row["costs"][axis])
        points = [[x, y] for x, _, y in able] or np.empty((0, 2))
        mask = pareto_mask(points, [False, True])
        fronts[axis] = [name for (_, name, _), kept in zip(able, mask, strict=True) if kept]
    return fronts
