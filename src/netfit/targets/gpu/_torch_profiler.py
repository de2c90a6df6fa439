"""Operators and kernels of a trace that ``torch.profiler`` wrote."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from netfit.errors import ArtifactError

from ._launch import Launch

__all__ = ["read"]

_MOST_BYTES = 1 << 30  # traces of long runs are large; a decompressed one beyond this is refused
_BYTES = {
    "float": 4, "double": 8, "half": 2, "bfloat16": 2, "c10::Half": 2, "c10::BFloat16": 2, "long int": 8, "int": 4,
    "signed char": 1, "unsigned char": 1, "bool": 1,
}  # fmt: skip
_DTYPES = {"double": "fp64", "half": "fp16", "bfloat16": "bf16", "c10::Half": "fp16", "c10::BFloat16": "bf16"}
_PRODUCTS = {"aten::mm": 0, "aten::addmm": 1, "aten::bmm": 0, "aten::baddbmm": 1, "aten::_scaled_mm": 0}
# position of (stride, padding) among the arguments
_CONVOLUTIONS = {
    "aten::conv2d": (3, 4), "aten::convolution": (3, 4), "aten::_convolution": (3, 4),
    "aten::cudnn_convolution": (3, 2), "aten::mkldnn_convolution": (4, 3), "aten::thnn_conv2d": (4, 5),
    "aten::_slow_conv2d_forward": (4, 5),
}  # fmt: skip
_POINTWISE = frozenset({
    "add", "add_", "sub", "mul", "mul_", "div", "relu", "relu_", "clamp_min", "clamp_min_", "gelu", "silu", "silu_",
    "sigmoid", "tanh", "copy_", "hardtanh_", "exp", "neg", "pow", "sqrt", "rsqrt",
})  # fmt: skip
_REDUCTIONS = frozenset({
    "_softmax", "_log_softmax", "native_layer_norm", "native_batch_norm", "cudnn_batch_norm", "sum", "mean", "amax",
    "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "native_group_norm",
})  # fmt: skip
Event = Mapping[str, Any]


def read(path: Path, app: str | None, device: str | None) -> Iterator[Launch]:
    """One launch per operator; see `KernelDB.from_torch_profiler`."""
    trace = _load(path)
    app, source = app or path.name.split(".")[0], f"torch_profiler:{path.name}"
    try:
        events = [e for e in trace["traceEvents"] if isinstance(e, dict) and e.get("ph") == "X" and "dur" in e]
        known = {int(d["id"]): str(d["name"]) for d in trace.get("deviceProperties") or [] if "id" in d and "name" in d}
        kernels = [e for e in events if str(e.get("cat", "")).lower() == "kernel"]
        found = _on_gpu(kernels, events, known, app, device) if kernels else _on_cpu(events, app, device or "cpu")
        rows = [Launch(**row, source=source) for row in found if row["time_s"] > 0]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:  # an event of another form
        raise ArtifactError(f"{path} is no trace of torch.profiler: {type(e).__name__}: {e}") from e
    if not rows:
        raise ArtifactError(f"{path} holds neither kernels nor operators; record with activities=[CPU, CUDA]")
    yield from rows


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ArtifactError(f"{path} holds more than {_MOST_BYTES} bytes; trace fewer steps")
        trace = json.loads(data)
        if not isinstance(trace["traceEvents"], list):
            raise TypeError("traceEvents is no list")
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror or e}") from e
    except (ValueError, KeyError, TypeError, EOFError, RecursionError, zlib.error) as e:
        raise ArtifactError(f"{path} is no trace of torch.profiler: {type(e).__name__}: {e}") from e
    return dict(trace)


def _on_gpu(
    kernels: Sequence[Event], events: Sequence[Event], known: Mapping[int, str], app: str, device: str | None
) -> Iterator[dict[str, Any]]:
    """The kernels of one operator call belong together: they have its external id."""
    operators = {_id(e): e for e in events if e.get("cat") == "cpu_op" and _id(e) is not None}
    groups: dict[tuple[int, Any], list[Event]] = {}
    for number, kernel in enumerate(kernels):
        place = int(kernel.get("args", {}).get("device", 0))
        owner = _id(kernel)
        groups.setdefault((place, owner if owner in operators else f"alone {number}"), []).append(kernel)
    for (place, owner), mine in groups.items():
        longest = max(mine, key=lambda e: float(e["dur"]))
        args = longest.get("args", {})
        row = {
            "device": device or known.get(place, f"gpu {place}"), "app": app, "kernel": str(longest.get("name", "?")),
            "grid": _sizes(args.get("grid")), "block": _sizes(args.get("block")),
            "shared_bytes": int(args.get("shared memory", 0) or 0),
            "registers": int(args.get("registers per thread", 0) or 0),
            "time_s": sum(float(e["dur"]) for e in mine) * 1e-6,
        }  # fmt: skip
        yield row | (_described(operators[owner]) or {} if owner in operators else {})


def _on_cpu(events: Sequence[Event], app: str, device: str) -> Iterator[dict[str, Any]]:
    """The outermost operators that are understood: what they call is part of their time."""
    threads: dict[Any, list[Event]] = {}
    for event in events:
        if event.get("cat") == "cpu_op":
            threads.setdefault((event.get("pid"), event.get("tid")), []).append(event)
    for mine in threads.values():
        end = float("-inf")
        for event in sorted(mine, key=lambda e: (float(e["ts"]), -float(e["dur"]))):
            if float(event["ts"]) >= end and (found := _described(event)):
                end = float(event["ts"]) + float(event["dur"])
                time_s = float(event["dur"]) * 1e-6
                yield {"device": device, "app": app, "kernel": str(event["name"]), "time_s": time_s} | found


def _id(event: Event) -> Any:
    args = event.get("args", {})
    return args.get("External id", args.get("external id"))


def _sizes(given: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in given) if isinstance(given, list | tuple) else ()


def _described(event: Event) -> dict[str, Any] | None:
    """What an operator computes, from its recorded shapes; None when it is not understood."""
    args = event.get("args", {})
    dims, types = args.get("Input Dims"), args.get("Input type", args.get("Input Types", []))
    if not isinstance(dims, list):
        return None
    shapes = [tuple(d) if isinstance(d, list) and all(isinstance(n, int) for n in d) else () for d in dims]
    name = str(event.get("name"))
    kind = str(types[0]) if types else "float"
    common = {"dtype": _DTYPES.get(kind, "fp32")}
    size = _BYTES.get(kind, 4)
    short = name.removeprefix("aten::")
    if name in _PRODUCTS:
        first = _PRODUCTS[name]
        found = _product(shapes[first : first + 2])
    elif name in _CONVOLUTIONS:
        found = _convolution(shapes, args.get("Concrete Inputs") or [], *_CONVOLUTIONS[name])
    elif short in _POINTWISE | _REDUCTIONS and shapes and shapes[0]:
        n = prod(shapes[0])
        read = sum(prod(s) for s in shapes if s)
        group = "elementwise" if short in _POINTWISE else "reduction"
        found = {
            "kind": group,
            "variant": _variant(short),
            "m": n,
            "flops": float(n),
            "bytes": float((read + n) * size),
        }
    else:
        return None
    if found is None or min(found[x] for x in "mnk" if x in found) < 1:
        return None
    return _with_bytes(found, size) | common


def _variant(short: str) -> str:
    """An operator by the name a traced network gives it."""
    name = short.strip("_").removeprefix("native_").removeprefix("cudnn_").removesuffix("_with_indices")
    return "relu" if name == "clamp_min" else name


def _product(shapes: Sequence[tuple[int, ...]]) -> dict[str, Any] | None:
    if len(shapes) < 2 or len(shapes[0]) not in (2, 3) or len(shapes[1]) != len(shapes[0]):
        return None
    count = shapes[0][0] if len(shapes[0]) == 3 else 1
    return {"kind": "gemm", "m": shapes[0][-2], "k": shapes[0][-1], "n": shapes[1][-1], "count": count}


def _convolution(
    shapes: Sequence[tuple[int, ...]], concrete: Sequence[Any], at_stride: int, at_padding: int
) -> dict[str, Any] | None:
    """As the matrix product it is lowered to; strides and padding are recorded as text."""
    if len(shapes) < 2 or len(shapes[0]) != 4 or len(shapes[1]) != 4:
        return None
    (batch, cin, *image), (cout, per_group, *window) = shapes[0], shapes[1]
    stride, padding = _numbers(concrete, at_stride, 1), _numbers(concrete, at_padding, 0)
    out = [(i + 2 * p - w) // s + 1 for i, w, s, p in zip(image, window, stride, padding, strict=True)]
    groups = cin // max(1, per_group)
    moved = batch * cin * prod(image) + cout * per_group * prod(window) + batch * cout * prod(out)
    return {
        "kind": "conv2d", "m": batch * prod(out), "n": cout // max(1, groups), "k": per_group * prod(window),
        "count": max(1, groups), "bytes": float(moved),
    }  # fmt: skip


def _numbers(concrete: Sequence[Any], at: int, otherwise: int) -> list[int]:
    try:
        found = json.loads(str(concrete[at]))
    except (IndexError, ValueError):
        return [otherwise] * 2
    return (
        [int(n) for n in found] * (1 if len(found) == 2 else 2)
        if isinstance(found, list) and found
        else [otherwise] * 2
    )


def _with_bytes(found: dict[str, Any], size: int) -> dict[str, Any]:
    """Operations and bytes of a product, where the operator did not say them."""
    if "flops" not in found:
        m, n, k, count = (found[x] for x in ("m", "n", "k", "count"))
        found["flops"] = 2.0 * m * n * k * count
        found["bytes"] = size * found.get("bytes", float(count * (m * k + k * n + m * n)))
    return found
