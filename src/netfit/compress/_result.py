"""What a finished job says: the deployed file, checked and measured, beside the uncompressed network."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from netfit.deploy import Exported, Fidelity, export, open_session, verify
from netfit.search import Row, pareto_mask
from netfit.surgery import Policy, Quantize, plain, save
from netfit.train import evaluate
from netfit.workload import Workload, trace

from ._cost import Cost, HostMeter, Meter
from ._search import drawn_by
from ._settings import Settings
from ._space import Candidate, SearchSpace

if TYPE_CHECKING:
    from ._job import _Job

__all__ = ["deployed"]

TEST_BATCH = 32  # larger batches of some int8 nets come out wrong in OpenVINO 2026.4; batch 1 is what is served
VERIFIED = 32


def deployed(
    job: "_Job",
    base: nn.Module,
    small: nn.Module,
    policy: Policy,
    space: SearchSpace,
    candidate: Candidate,
    gauge: Meter,
    rows: Sequence[Row],
    chosen: Mapping[str, Any],
    history: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the artifact of the compressed network and collect every number of the report."""
    x, y = job.test_set.tensors()
    example = (torch.zeros(1, *job.shape),)
    before, after = trace(base, *example), trace(plain(small), *example)
    final: dict[str, Any] = {"accuracy": evaluate(small, x, y), **_size(after)}
    final["bytes"] = after.stored_bytes({n: Quantize.of(p).weight_bits for n, p in candidate.precision.items()})
    layers = _layers(space, candidate, before, after)
    substituted: list[dict[str, str]] = []
    if isinstance(gauge, HostMeter):
        exported, fidelity, cost = _ship(job, small, policy, gauge, x[:VERIFIED])
        substituted = [
            {"name": f.name, "asked": f.asked, "executed": f.executed, "why": "chosen by the runtime"}
            for f in fidelity.substituted
        ]
        final |= {
            "accuracy_deployed": _file_accuracy(exported.path, gauge, x.numpy(), y.numpy()),
            "agreement": fidelity.agreement,
            "bytes": exported.path.stat().st_size,
            "peak_bytes": gauge.target.peak_memory(exported.path).peak_bytes,
        }
        _add_times(layers, base, example, gauge, exported, substituted, Path(job.run.path))
    else:
        place = job.run.path / "model"
        save(small, place, spec=job.spec, num_classes=job.classes, example_inputs=example, policy=policy)
        cost = gauge.cost(small)
        final["accuracy_deployed"] = final["accuracy"]
    final |= {
        "ratio": cost.ratio, "ratio_lo": cost.lo, "ratio_hi": cost.hi, "latency_s": cost.time_s,
        "noisy": cost.noisy, "met": cost.ratio <= job.goal,
    }  # fmt: skip
    return {
        "kind": "compress",
        "model": job.spec,
        "data": job.data,
        "goal": {"latency": job.goal, "max_drop": drop / 100 if (drop := job.settings.max_drop) is not None else None},
        # the yardstick's time in the measurement that timed the result: an earlier one may have met another load
        "base": {"accuracy": evaluate(base, x, y), "latency_s": cost.time_s / cost.ratio, **_size(before)},
        "final": final,
        "yardstick": gauge.describe(),
        "layers": layers,
        "substituted": substituted,
        **_trials(rows, job.goal * gauge.margin, drawn_by(job.settings.sampler)),
        "chosen": chosen["number"],
        "history": _epochs(history),
        "sensitivity": _sensitivity(rows, space),
        "images": {
            "search": min(len(job.held[0]), 1000), "held_out": len(job.held[0]), "training": len(job.train_set),
            "test": len(x),
        },
        "frozen_groups": [{"group": g.name, "reason": g.frozen} for g in space.plan if g.frozen],
        "commands": [_command(job), f"netfit apply {job.spec} {job.run.path / 'policy.toml'} --data {job.data}"],
    }  # fmt: skip


def _command(job: "_Job") -> str:
    """The command line that does this job again."""
    words = [f"netfit compress {job.spec} --data {job.data} --latency {job.goal:g}"]
    for name, default in asdict(Settings()).items():
        value = getattr(job.settings, name)
        if value != default and name != "finalists":
            words.append(f"--{name.replace('_', '-')} {','.join(value) if isinstance(value, tuple) else value}")
    return " ".join([*words, f"--seed {job.run.seed}"])


def _ship(
    job: "_Job", small: nn.Module, policy: Policy, gauge: HostMeter, x: torch.Tensor
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
    ]


def _add_times(
    layers: list[dict[str, Any]],
    base: nn.Module,
    example: tuple[torch.Tensor, ...],
    gauge: HostMeter,
    exported: Exported,
    substituted: list[dict[str, str]],
    folder: Path,
) -> None:
    """Seconds of each layer before and after, and the precision it was seen to run at."""
    other = {s["name"]: s["executed"] for s in substituted}
    original = export(base, example, folder / "stages" / "base.onnx", runtime=gauge.candidate_runtime).path
    before, after = (gauge.target.file_cost(p) for p in (original, exported.path))
    for row in layers:
        row["executed"] = other.get(row["name"], row["asked"])
        for key, table in (("time_before_s", before), ("time_after_s", after)):
            if row["name"] in table.names:
                row[key] = float(table.time_s[table.names.index(row["name"])])


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
