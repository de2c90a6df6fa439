"""What a finished job says: the deployed file, checked and measured, beside the uncompressed network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from netfit.deploy import Exported, Fidelity, export, open_session, verify
from netfit.io import write_json
from netfit.search import Row, pareto_mask
from netfit.surgery import Policy, Quantize, plain, save
from netfit.targets import CostTable
from netfit.train import evaluate
from netfit.workload import Workload, trace

from ._cost import Cost, HostMeter, Meter
from ._found import Found
from ._search import drawn_by
from ._settings import Settings
from ._space import Candidate, SearchSpace
from ._why import why_not_faster

if TYPE_CHECKING:
    from ._job import Job

__all__ = ["deployed"]

TEST_BATCH = 32  # larger batches of some int8 nets come out wrong in OpenVINO 2026.4; batch 1 is what is served
VERIFIED = 32


def deployed(job: "Job", base: nn.Module, gauge: Meter, found: Found) -> dict[str, Any]:
    """Write the artifact of the compressed network and collect every number of the report."""
    x, y = job.test_set.tensors()
    small, space, candidate = found.network, found.space, found.candidate
    before, after = trace(base, *job.example), trace(plain(small), *job.example)
    final: dict[str, Any] = {"accuracy": evaluate(small, x, y), **_size(after)}
    weights = after.stored_bytes({n: Quantize.of(p).weight_bits for n, p in candidate.precision.items()})
    final |= {"bytes": weights, "weight_bytes": weights}
    layers = _layers(space, candidate, before, after)
    substituted: list[dict[str, str]] = []
    why: dict[str, Any] = {}
    if isinstance(gauge, HostMeter):
        exported, fidelity, cost = _ship(job, small, found.policy, gauge, x[:VERIFIED])
        substituted = [
            {"name": f.name, "asked": f.asked, "executed": f.executed, "why": "chosen by the runtime"}
            for f in fidelity.substituted
        ]
        memory = gauge.target.peak_memory(exported.path)
        other = {s["name"]: s["executed"] for s in substituted}
        final |= {
            "accuracy_deployed": _file_accuracy(exported.path, gauge, x.numpy(), y.numpy()),
            "agreement": fidelity.agreement,
            "bytes": exported.path.stat().st_size,
            "peak_bytes": memory.peak_bytes,
            "added_bytes": memory.added_bytes,
            "asked": exported.report["layers"],
            "executed": dict(Counter(other.get(name, asked) for name, asked in exported.asked.items())),
        }
        kernels = _add_times(layers, base, gauge, exported, substituted, Path(job.run.path))
        why = why_not_faster(layers, after, kernels, job.target.channel_step, space.steps)
    else:
        place = job.run.path / "model"
        save(small, place, spec=job.spec, num_classes=job.classes, example_inputs=job.example, policy=found.policy)
        cost = gauge.cost(small)
        final["accuracy_deployed"] = final["accuracy"]
    final |= {
        "ratio": cost.ratio, "ratio_lo": cost.lo, "ratio_hi": cost.hi, "latency_s": cost.time_s,
        "noisy": cost.noisy, "met": cost.ratio <= job.goal,
    }  # fmt: skip
    origin = job.settings.family or drawn_by(job.settings.sampler)
    return {
        "kind": "compress",
        "model": job.spec,
        "data": job.data,
        "target": job.name,
        "family": job.settings.family,
        "goal": {"latency": job.goal, "max_drop": drop / 100 if (drop := job.settings.max_drop) is not None else None},
        # the yardstick's time in the measurement that timed the result: an earlier one may have met another load
        "base": {"accuracy": job.base_accuracy(base), "latency_s": cost.time_s / cost.ratio, **_size(before)},
        "final": final,
        "yardstick": gauge.describe(),
        "layers": layers,
        "substituted": substituted,
        "why": why,
        **_trials(found.rows, job.goal * gauge.margin, origin),
        "predictor": found.search.prediction() if found.search else None,
        "chosen": found.number,
        "history": _epochs(found.history),
        "sensitivity": _sensitivity(found.rows, space),
        "images": {
            "search": min(len(job.held[0]), 1000), "held_out": len(job.held[0]), "training": len(job.train_set),
            "test": len(x),
        },
        "frozen_groups": [{"group": g.name, "reason": g.frozen} for g in space.plan if g.frozen],
        "commands": _commands(job, found),
    }  # fmt: skip


def _commands(job: "Job", found: Found) -> list[str]:
    """How to do this job again, how to make the chosen network, and how to make any other point of the search."""
    policies = {str(r.number): found.space.policy(found.space.candidate(r.params)).to_dict() for r in found.rows}
    write_json(job.run.path / "policies.json", policies | {str(found.number): found.policy.to_dict()})
    again = f"netfit apply {job.spec} {job.run.path}"
    words = [_command(job), f"{again}/policy.toml --data {job.data}"]
    return [*words, f"{again}#TRIAL --data {job.data}"] if len(found.rows) > 1 else words


def _command(job: "Job") -> str:
    """The command line that does this job again."""
    words = [f"netfit compress {job.spec} --data {job.data} --target {job.name} --latency {job.goal:g}"]
    for name, default in asdict(Settings()).items():
        value = getattr(job.settings, name)
        if value != default:
            separator = "," if name == "methods" else " "
            words.append(f"--{name.replace('_', '-')} {separator.join(value) if isinstance(value, tuple) else value}")
    return " ".join([*words, f"--seed {job.run.seed}"])


def _ship(
    job: "Job", small: nn.Module, policy: Policy, gauge: HostMeter, x: torch.Tensor
) -> tuple[Exported, Fidelity, Cost]:
    """Export the network next to its weights, check the file, and time it."""
    staged = job.run.path / "stages" / "model.onnx"
    exported = export(small, gauge.example_inputs, staged, runtime=gauge.candidate_runtime)
    fidelity = verify(exported, small, x, gauge.candidate_runtime)
    save(
        small, job.run.path / "model", spec=job.spec, num_classes=job.classes, example_inputs=gauge.example_inputs,
        policy=policy, files={"model.onnx": staged.read_bytes()},
    )  # fmt: skip
    return exported, fidelity, gauge.file_cost(exported)


def _file_accuracy(path: Path, gauge: HostMeter, x: Any, y: Any) -> float:
    session = open_session(path, gauge.candidate_runtime, gauge.target.threads)
    right = 0
    for i in range(0, len(x), TEST_BATCH):
        right += int((np.argmax(session.run(x[i : i + TEST_BATCH])[0], 1) == y[i : i + TEST_BATCH]).sum())
    return right / len(x)


def _size(workload: Workload) -> dict[str, int]:
    totals = workload.totals()
    return {"macs": totals["macs"], "params": totals["params"], "bytes": totals["weight_bytes"]}


def _layers(space: SearchSpace, candidate: Candidate, before: Workload, after: Workload) -> list[dict[str, Any]]:
    was, now = ({op.name: op for op in reversed(w.ops)} for w in (before, after))
    return [
        {
            "name": op.name,
            "kind": op.kind,
            "channels": was[op.name].params["weight"].shape[0],
            "kept": now[op.name].params["weight"].shape[0],
            "asked": candidate.precision[op.name],
            "macs_before": was[op.name].macs,
            "macs_after": now[op.name].macs,
        }
        for op in space.layers()
        if op.name in now and "weight" in now[op.name].params  # a structural replacement has none of its own
    ]


def _add_times(
    layers: list[dict[str, Any]],
    base: nn.Module,
    gauge: HostMeter,
    exported: Exported,
    substituted: list[dict[str, str]],
    folder: Path,
) -> CostTable:
    """Seconds of each layer before and after, and the precision it was seen to run at; returns those after."""
    other = {s["name"]: s["executed"] for s in substituted}
    original = export(base, gauge.example_inputs, folder / "stages" / "base.onnx", runtime=gauge.candidate_runtime).path
    before, after = (gauge.target.file_cost(p) for p in (original, exported.path))
    for row in layers:
        row["executed"] = other.get(row["name"], row["asked"])
        for key, table in (("time_before_s", before), ("time_after_s", after)):
            if row["name"] in table.names:
                row[key] = float(table.time_s[table.names.index(row["name"])])
    return after


def _trials(rows: Sequence[Row], goal: float, sampler: str) -> dict[str, Any]:
    points = [[r.value or 0.0, r.constraints["latency"]] for r in rows]
    mask = list(pareto_mask(points, [True, False])) if points else []
    trials = [
        {
            "number": r.number,
            "origin": r.note or sampler,
            "ratio": r.constraints["latency"] + goal,
            "score": r.value,
            "feasible": r.feasible,
            "guess": r.attrs.get("guess"),
        }
        for r in rows
    ]
    return {"trials": trials, "front": [r.number for r, kept in zip(rows, mask, strict=True) if kept]}


def _sensitivity(rows: Sequence[Row], space: SearchSpace) -> list[dict[str, Any]]:
    """Score of the network with one group alone narrowed, from the trials that did just that."""
    found = []
    for r in rows:
        if r.note != "sensitivity":
            continue
        keep = space.candidate(r.params).keep
        group = next((g for g, n in keep.items() if n < space.steps[g][-1]), None)
        if group is not None:
            found.append({"group": group, "kept_fraction": keep[group] / space.steps[group][-1], "score": r.value})
    return found


def _epochs(history: Mapping[str, Any]) -> list[dict[str, Any]]:
    accuracy = history.get("validation") or history.get("accuracy") or []
    return [
        {"epoch": i + 1, "loss": loss, "accuracy": a}
        for i, (loss, a) in enumerate(zip(history.get("loss", []), accuracy, strict=False))
    ]
