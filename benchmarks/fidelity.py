"""Random policies, two runtimes: is every layer executed as asked, or is the difference on record? (acceptance 4)"""

import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import record
from netfit.compress import plan_channels, slice_model
from netfit.deploy import export, open_session, verify
from netfit.models import build
from netfit.surgery import Policy, Quantize, apply, calibrate
from netfit.workload import trace

POLICIES, SAMPLES = 50, 64
RUNTIMES = ("openvino", "onnxruntime")
PRECISIONS = ("fp32", "int8", "int8", "w4a8")  # weights of four bits run as int8: a difference that must be on record
NET, SHAPE = "resnet20", (3, 32, 32)


def main() -> None:
    """One row a runtime; fails when a layer ran at another precision than asked and nothing says so."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(NET, num_classes=10, in_shape=SHAPE)
    x = torch.randn(SAMPLES, *SHAPE)
    with torch.no_grad():
        for _ in range(20):  # statistics of its own for every BatchNorm
            model(x)
    model.eval()
    plan = plan_channels(model, x[:2])
    layers = [op.name for op in trace(model, x[:2]) if op.kind in ("conv2d", "linear")]
    found: dict[str, list[dict[str, Any]]] = {runtime: [] for runtime in RUNTIMES}
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(POLICIES):
            keep = {g.name: g.fit(rng.choice((0.25, 0.5, 0.75, 1.0))) for g in plan.free}
            precision = {n: rng.choice(PRECISIONS) for n in layers}
            low = Policy({n: Quantize.of(p) for n, p in precision.items() if p != "fp32"})
            small = apply(slice_model(model, plan, keep), low, x[:2]).eval()
            calibrate(small, [x])
            exported = export(small, (x[:1],), Path(folder) / f"{i}.onnx", runtime="onnxruntime")
            for runtime in RUNTIMES:
                found[runtime].append(_check(exported, small, x, runtime, precision))
            print(".", end="", flush=True)
    rows = [_row(runtime, checks) for runtime, checks in found.items()]
    silent = sum(row["silent changes"] for row in rows)
    record("fidelity", rows, net=NET, policies=POLICIES, held={"zero silent changes": silent == 0})
    if silent:
        raise SystemExit(1)


def _check(exported: Any, small: Any, x: torch.Tensor, runtime: str, asked: dict[str, str]) -> dict[str, Any]:
    """What the runtime says it executes, read without the room's own comparison, beside what that one records."""
    session = open_session(exported.path, runtime)
    executed = {n: layer.precision for layer in session.layers() for n in (layer.name, *layer.fused)}
    fidelity = verify(exported, small, x, runtime)
    on_record = {s.name for s in fidelity.substituted}
    other = [n for n, p in asked.items() if executed.get(n, executed.get(f"{n}/Add_output_0", "absent")) != p]
    return {
        "layers": len(asked),
        "other": len(other),
        "silent": [n for n in other if n not in on_record],
        "agreement": fidelity.agreement,
    }


def _row(runtime: str, checks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "runtime": runtime,
        "policies": len(checks),
        "layers": sum(c["layers"] for c in checks),
        "at another precision, on record": sum(c["other"] - len(c["silent"]) for c in checks),
        "silent changes": sum(len(c["silent"]) for c in checks),
        "least agreement": min(c["agreement"] for c in checks),
    }


if __name__ == "__main__":
    main()
