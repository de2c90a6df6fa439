"""Generated operators against torch, oneDNN and ONNX Runtime, untuned and on one thread: ``python -m benchmarks.ops``.

The least CPU time of interleaved calls counts; everything else of the machine only makes calls longer. Weights are
packed beforehand wherever the other side can do that, too.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks._common import interleave, record
from netfit.compile import ops
from netfit.compile._sizes import ConvSizes

REPEATS = 30
GEMMS = (
    (960, 960, 960), (480, 480, 480), (192, 192, 192), (1440, 1440, 1440), (12, 960, 960), (333, 517, 129),
    (64, 3136, 576), (128, 784, 1024),
)  # fmt: skip
INT8 = ((960, 960, 960), (480, 480, 480), (64, 784, 1152), (333, 517, 129), (128, 3136, 576), (192, 192, 192))
BITS = ((480, 480, 480), (64, 784, 1152), (960, 960, 960))
CONVS = (  # channels, size, rows, taps, stride of ResNet-18
    (3, 224, 64, 7, 2), (64, 56, 64, 3, 1), (64, 56, 128, 3, 2), (64, 56, 128, 1, 2), (128, 28, 128, 3, 1),
    (128, 28, 256, 3, 2), (128, 28, 256, 1, 2), (256, 14, 256, 3, 1), (256, 14, 512, 3, 2), (256, 14, 512, 1, 2),
    (512, 7, 512, 3, 1),
)  # fmt: skip
Calls = dict[str, Callable[[], object]]


def least(candidates: Calls) -> dict[str, float]:
    """Least CPU seconds of every candidate."""
    return {name: min(t) for name, t in interleave(candidates, REPEATS, 3, time.thread_time).items()}


def row(what: str, unit: str, seconds: dict[str, float], against: Sequence[str], goal: float) -> dict[str, Any]:
    """One line: how many times as long the fastest of the others takes."""
    best = min(against, key=lambda name: seconds[name])
    times = seconds[best] / seconds["ours"]
    return {
        "what": what, "by": unit, "us": 1e6 * seconds["ours"], "against": best, "times": times, "goal": goal,
        "held": times >= goal,
    }  # fmt: skip


def mean(what: str, rows: Sequence[dict[str, Any]], goal: float) -> dict[str, Any]:
    """The geometric mean of some lines."""
    value = float(np.exp(np.mean([np.log(r["times"]) for r in rows])))
    return {"what": what, "by": "", "us": "", "against": "", "times": value, "goal": goal, "held": value >= goal}


def on(op: Any, unit: int) -> Any:
    """The default kernel, or the best default on a given unit."""
    m = ops.machine()
    config = op.default(m)
    if config[0] != unit:
        config = op.default(ops.Machine(m.name, m.lanes, m.registers, m.l1, m.l2, m.flags, bool(unit)))
    return ops.Kernel(op, config)


def onnx(kind: str, x: np.ndarray, w: np.ndarray, out: tuple[int, ...], **attributes: Any) -> Callable[[], object]:
    """One node with constant weights in ONNX Runtime, inputs and results bound."""
    import onnxruntime
    from onnx import helper, numpy_helper

    types = [
        helper.np_dtype_to_tensor_dtype(np.dtype(t)) for t in (x.dtype, np.int32 if x.dtype == np.int8 else x.dtype)
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"], **attributes)], "g", [info("x", types[0], x.shape)],
        [info("y", types[1], out)], [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding, value = session.io_binding(), onnxruntime.OrtValue.ortvalue_from_numpy
    kept = value(x), value(np.zeros(out, np.int32 if x.dtype == np.int8 else x.dtype))
    binding.bind_ortvalue_input("x", kept[0])
    binding.bind_ortvalue_output("y", kept[1])
    return lambda kept=kept: session.run_with_iobinding(binding)


def fp32() -> list[dict[str, Any]]:
    """Products of matrices against MKL, oneDNN and ONNX Runtime, by both units."""
    rows: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    mkl = []
    for m, n, k in GEMMS:
        x, w = torch.randn(m, k), torch.randn(k, n)
        packed = torch.ops.mkldnn._reorder_linear_weight(w.T.contiguous(), m)
        calls: Calls = {
            "torch.mm": lambda w=w, x=x: x @ w,
            "oneDNN": lambda p=packed, x=x: torch.ops.mkldnn._linear_pointwise(x, p, None, "none", [], ""),
            "onnxruntime": onnx("MatMul", x.numpy(), w.numpy(), (m, n)),
        }
        op = ops.Gemm.of(m, n, k)
        for unit in range(1 + ops.machine().matrix_unit):
            kernel = on(op, unit).pack(w)
            calls[f"unit {unit}"] = lambda f=kernel, x=x: f(x)
        found = least(calls)
        fastest = min((u for u in (0, 1) if f"unit {u}" in found), key=lambda u: found[f"unit {u}"])
        for unit in (0, 1):
            if f"unit {unit}" in found:
                seconds = found | {"ours": found[f"unit {unit}"]}
                rows[unit].append(row(f"fp32 {m}x{n}x{k}", _UNITS[unit], seconds, tuple(calls)[:3], 0.85))
        mkl.append({"times": found["torch.mm"] / found[f"unit {fastest}"]})
    best = [max(pair, key=lambda r: r["times"]) for pair in zip(*(r for r in rows.values() if r), strict=True)]
    return [
        *rows[0], *rows[1], mean("fp32 products, the faster unit, mean", best, 1.0),
        mean("fp32 products by vectors, mean", rows[0], 1.0), mean("fp32 products against torch.mm, mean", mkl, 1.8),
    ]  # fmt: skip


_UNITS = ("vectors", "matrix unit")


def narrow() -> list[dict[str, Any]]:
    """int8 against torch and ONNX Runtime, bits against our int8 of both units."""
    rows, bits = [], []
    for m, n, k in INT8:
        x, w = (torch.randint(-128, 128, shape, dtype=torch.int8) for shape in ((m, k), (k, n)))
        kernel = ops.Kernel(ops.Gemm.of(m, n, k, "int8")).pack(w)
        found = least({
            "ours": lambda f=kernel, x=x: f(x), "torch._int_mm": lambda w=w, x=x: torch._int_mm(x, w),
            "onnxruntime": onnx("MatMulInteger", x.numpy(), w.numpy(), (m, n)),
        })  # fmt: skip
        rows.append(row(f"int8 {m}x{n}x{k}", _UNITS[kernel.config[0]], found, ("torch._int_mm", "onnxruntime"), 0.85))
    for m, n, k in BITS:
        x, w = (torch.randint(-128, 128, shape, dtype=torch.int8) for shape in ((m, k), (k, n)))
        for unit in range(1 + ops.machine().matrix_unit):
            int8 = on(ops.Gemm.of(m, n, k, "int8"), unit).pack(w)
            for planes in (1, 2):
                op = ops.BitConv2d(ConvSizes.gemm(m, n, k), planes)
                kernel = ops.Kernel(op).pack(w.T[:, :, None, None].sign().contiguous())
                codes = x.T[None, :, None].contiguous().to(torch.uint8)
                found = least({"ours": lambda f=kernel, x=codes: f(x), "our int8": lambda f=int8, x=x: f(x)})
                what = f"bits{planes} {m}x{n}x{k} against int8 by {_UNITS[unit]}"
                bits.append(row(what, "vectors", found, ("our int8",), 1.5 if planes == 1 else 0.0))
    return [*rows, mean("int8 products, mean", rows, 1.0), *bits]


def convolutions() -> list[dict[str, Any]]:
    """The convolutions of ResNet-18 against torch in both layouts and ONNX Runtime."""
    rows: dict[str, list[dict[str, Any]]] = {"nhwc": [], "nchw": []}
    for c, size, k, taps, stride in CONVS:
        z = ConvSizes(1, c, size, size, k, taps, taps, (stride, stride), (taps // 2, taps // 2))
        x, w = torch.randn(1, c, size, size), torch.randn(k, c, taps, taps)
        last, w_last = x.contiguous(memory_format=torch.channels_last), w.contiguous(memory_format=torch.channels_last)
        calls: Calls = {
            "torch nchw": lambda x=x, w=w, z=z: torch.conv2d(x, w, None, z.stride, z.padding),
            "torch channels last": lambda x=last, w=w_last, z=z: torch.conv2d(x, w, None, z.stride, z.padding),
            "onnxruntime": onnx(
                "Conv", x.numpy(), w.numpy(), (1, k, z.oh, z.ow), strides=z.stride, pads=[taps // 2] * 4,
                kernel_shape=[taps, taps],
            ),
        }  # fmt: skip
        units = {}
        for layout, given in (("nhwc", x.permute(0, 2, 3, 1).contiguous()), ("nchw", x)):
            kernel = ops.Kernel(ops.Conv2d(z, "float32", layout)).pack(w)
            units[layout] = _UNITS[kernel.config[0]]
            calls[layout] = lambda f=kernel, x=given: f(x)
        found = least(calls)
        for layout, goal in (("nhwc", 1.08), ("nchw", 0.92)):
            seconds = found | {"ours": found[layout]}
            what = f"conv {layout} {c}x{size}x{size} k{k} {taps}x{taps}/{stride}"
            rows[layout].append(row(what, units[layout], seconds, tuple(calls)[:3], goal))
    return [
        *rows["nhwc"], mean("convolutions of ResNet-18, channels last, mean", rows["nhwc"], 1.08), *rows["nchw"],
        mean("convolutions of ResNet-18, nchw in and out, mean", rows["nchw"], 0.92),
    ]  # fmt: skip


def gaussian() -> list[dict[str, Any]]:
    """Probabilistic dense layers against the deterministic one and against composed torch."""
    rows = []
    for batch, inside, out in ((128, 784, 128), (1, 784, 100)):
        op = ops.PfpDense.of(batch, inside, out)
        xm, wm = torch.randn(batch, inside), torch.randn(out, inside)
        x, w = torch.stack([xm, xm**2 + 0.1]), torch.stack([wm, wm**2 + 0.1])
        means, seconds = wm.T.contiguous(), w[1].T.contiguous()
        squares = means**2

        def composed(x: Any = x, a: Any = means, b: Any = seconds, c: Any = squares) -> Any:
            mean = x[0] @ a
            return mean, x[1] @ b - (x[0] ** 2) @ c + mean**2

        for unit in range(1 + ops.machine().matrix_unit):
            kernel = on(op, unit).pack(w)
            found = least({
                "ours": lambda f=kernel, x=x: f(x), "torch.mm": lambda a=xm, b=means: a @ b, "composed torch": composed,
            })  # fmt: skip
            rows.append(row(op.name, _UNITS[kernel.config[0]], found, ("torch.mm",), 1 / 1.35))
            rows.append(row(op.name, _UNITS[kernel.config[0]], found, ("composed torch",), 2.2))
    return rows


def main() -> None:
    """Print and keep how many times as long the others take."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [*fp32(), *narrow(), *convolutions(), *gaussian()]
    note = "times: the fastest other over ours, least CPU seconds of each; 0.85 is the floor of a single product"
    record("ops", rows, repeats=REPEATS, note=note)


if __name__ == "__main__":
    main()
