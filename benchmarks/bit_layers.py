"""A 1-bit convolution in OpenVINO against int8 ones, batch 1, one thread (compress.md, acceptance 5)."""

import statistics
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._common import record
from netfit.deploy import Grid, QuantSpec, Session, open_session, quantize
from netfit.errors import require
from netfit.targets import HostCPU, measure
from netfit.workload import trace

SHAPES = ((64, 32), (128, 16), (256, 16), (256, 8), (512, 4))  # channels and image size of a 3x3 layer
LIMITS = {(128, 16): 0.55, (256, 16): 0.45}  # of ONNX Runtime's int8
REPEATS, BUDGET_S = 3, 2.0


def network(weight: Any, size: int) -> Any:
    """One convolution as ONNX; an identity behind it lets an int8 form round its result too."""
    onnx = require("onnx", "export")
    make, channels = onnx.helper, weight.shape[1]
    nodes = [
        make.make_node("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=weight.shape[2:], pads=[1] * 4),
        make.make_node("Identity", ["c"], ["y"], "end"),
    ]
    tensors = [onnx.numpy_helper.from_array(t, n) for n, t in (("w", weight), ("b", np.ones(len(weight), np.float32)))]
    kind = onnx.TensorProto.FLOAT
    inputs = [make.make_tensor_value_info("x", kind, ["batch", channels, size, size])]
    graph = make.make_graph(nodes, "conv", inputs, [make.make_tensor_value_info("y", kind, None)], tensors)
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)


def sessions(weight: Any, size: int) -> dict[str, Session]:
    """The layer in every form that is compared."""
    plain = network(weight, size)
    scales = (np.abs(weight).max((1, 2, 3)) / 127).astype(np.float32)
    int8 = quantize(plain, QuantSpec({"x": Grid(1 / 64), "c": Grid(1 / 2, 128)}, {"conv": scales}))
    found = {f"w1a{b}": open_session(quantize(plain, QuantSpec(bits={"conv": Grid(1.0, 0, 2**b)}))) for b in (1, 2)}
    return found | {"ort_int8": open_session(int8, "onnxruntime"), "ov_int8": open_session(int8)}


def check(found: dict[str, Session], weight: Any, x: Any) -> None:
    """Fail unless the 1-bit layers compute what torch computes."""
    magnitude = np.abs(weight).mean((1, 2, 3), keepdims=True)
    signs = torch.from_numpy(np.where(weight >= 0, magnitude, -magnitude))
    for bits in (1, 2):
        rounded = torch.from_numpy(np.clip(np.rint(x), 0, 2**bits - 1))
        expected = nn.functional.conv2d(rounded, signs, padding=1) + 1
        worst = np.abs(found[f"w1a{bits}"].run(x)[0] - expected.numpy()).max()
        assert worst < 1e-3, f"w1a{bits} is off by {worst}"


def main() -> None:
    """Print and keep one row for each shape; fail above the limits."""
    torch.set_num_threads(1)
    rng, rows, host = np.random.default_rng(0), [], HostCPU()
    for channels, size in SHAPES:
        weight = rng.normal(size=(channels, channels, 3, 3)).astype(np.float32)
        x = np.abs(rng.normal(size=(1, channels, size, size))).astype(np.float32)
        runs = []
        for _ in range(REPEATS):  # where buffers lie moves a layer's time for as long as its session lives
            found = sessions(weight, size)
            check(found, weight, x)
            calls = {name: session.warm(x) for name, session in found.items()}
            runs.append(measure(calls, yardstick="ort_int8", budget_s=BUDGET_S, threads=1).timings)
        row: dict[str, Any] = {"channels": channels, "image": size}
        row["ort_int8_us"] = 1e6 * statistics.median(r["ort_int8"].seconds for r in runs)
        for name in ("w1a1", "w1a2", "ov_int8"):
            row[f"{name}_over_ort_int8"] = statistics.median(r[name].ratio for r in runs)
        (op,) = trace(nn.Conv2d(channels, channels, 3, padding=1), torch.from_numpy(x))
        row["limit_w1a1"] = LIMITS.get((channels, size))
        row["offered_between_int8_layers"] = ", ".join(p for p in host.offered(op) if p.startswith("w1")) or "none"
        rows.append(row)
    record("bit_layers", rows, repeats=REPEATS, batch=1, threads=1)
    missed = [r for r in rows if r["limit_w1a1"] and r["w1a1_over_ort_int8"] > r["limit_w1a1"]]
    assert not missed, f"w1a1 takes more than its limit: {missed}"


if __name__ == "__main__":
    main()
