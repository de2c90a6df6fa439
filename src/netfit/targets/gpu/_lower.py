"""A traced network as the kernels a GPU would be given, one operator after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from netfit.workload import Op, Workload

from .._traced import Bits
from ._launch import BITS, Launch

__all__ = ["Call", "calls"]

_NO_WORK = frozenset({
    "reshape", "flatten", "transpose", "slice", "identity", "dropout", "unsqueeze", "squeeze", "expand", "split",
    "view",
})  # fmt: skip
_RECURRENT = frozenset({"lstm", "gru", "rnn"})
_REDUCTIONS = frozenset({
    "softmax", "layer_norm", "batch_norm", "group_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean",
    "sum",
})  # fmt: skip
_PRECISIONS = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
_LOW = ((4, "int4"), (8, "int8"), (16, "bf16"))


@dataclass(frozen=True)
class Call:
    """A kernel of an operator.

    Attributes:
        op: index of the operator.
        launch: what the kernel computes; nothing is measured.
        times: how often it runs, one after another.
    """

    op: int
    launch: Launch
    times: int = 1


def calls(workload: Workload, device: str, bits: Bits, precision: str | None) -> list[Call]:
    """Kernels in order of execution; an operator that only renames memory has none.

    Args:
        workload: the traced network.
        device: name that the launches get.
        bits: (weight bits, activation bits) of layers that ask for a precision.
        precision: of all other operators; that of their tensors when None.
    """
    out: list[Call] = []
    for i, op in enumerate(workload):
        if op.kind not in _NO_WORK and op.outputs:
            out += [Call(i, launch, times) for launch, times in _kernels(op, device, bits.get(op.key), precision)]
    return out


def _kernels(op: Op, device: str, asked: tuple[int, int] | None, precision: str | None) -> Sequence[tuple[Launch, int]]:
    traced = _PRECISIONS.get((op.inputs or op.outputs)[0].dtype, "fp32")
    dtype = _low(asked) if asked else precision or traced
    weight = _low((asked[0], 1)) if asked else dtype
    moved = (op.act_bytes * BITS[dtype] + op.weight_bytes * BITS[weight]) / BITS[traced]
    common = Launch(device, "", op.name, dtype=dtype, weight_dtype="" if weight == dtype else weight, bytes=moved)
    products = op.gemms()
    if not products:
        n = max(1, *(t.numel for t in (*op.inputs[:1], op.outputs[0])))
        kind = "reduction" if op.kind in _REDUCTIONS else "elementwise"
        return [(replace(common, kind=kind, variant=op.kind, m=n, flops=float(n)), 1)]
    flops = 2.0 * sum(g.macs for g in products)
    first = products[0]
    if op.kind in _RECURRENT:
        # Time steps wait for each other: each is a kernel of its own, and each reads its weights again.
        steps = (replace(common, kind="gemm", m=g.m, n=g.n, k=g.k).product() for g in products)
        return [(step, g.count) for step, g in zip(steps, products, strict=True)]
    if op.kind == "attention":
        keys = op.inputs[1].shape
        share = max(1.0, first.count / max(1, prod(keys[:-2])))
        heads = replace(common, kind="attention", share=share, flops=flops)
        return [(replace(heads, m=first.m, n=first.n, k=first.k, count=first.count, batch=op.inputs[0].shape[0]), 1)]
    kind = "conv2d" if op.kind.startswith("conv") else "gemm"
    count = first.count * first.groups
    return [(replace(common, kind=kind, m=first.m, n=first.n, k=first.k, count=count, flops=flops), 1)]


def _low(asked: tuple[int, int]) -> str:
    return next((name for bits, name in _LOW if max(asked) <= bits), "fp32")
