"""Operators as matrix products: C[m, n] += A[m, k] @ B[k, n], `count` times, in each of `groups` independent parts.

All targets that model hardware (systolic arrays, the VTA, GPU kernels, rooflines) read this one lowering. A
convolution is the im2col product, a recurrent layer one product for its inputs and one per time step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

__all__ = ["Gemm", "lower"]


@dataclass(frozen=True)
class Gemm:
    """`count` products of (m x k) by (k x n), each made of `groups` parts of this size.

    Attributes:
        m: rows of the moving operand (pixels or tokens).
        n: columns of the result (output channels of one group).
        k: length of each sum.
        count: how many products of this size run one after another.
        groups: independent parts of one product (grouped convolution).
        weight_operand: whether B holds trained weights and can stay on the hardware.
    """

    m: int
    n: int
    k: int
    count: int = 1
    groups: int = 1
    weight_operand: bool = True

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all `count` products and `groups` parts."""
        return self.m * self.n * self.k * self.count * self.groups


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def lower(
    kind: str,
    inputs: Sequence[_Shaped],
    outputs: Sequence[_Shaped],
    params: Mapping[str, _Shaped],
    attrs: Mapping[str, Any],
) -> tuple[Gemm, ...]:
    """Matrix products of one operator; empty when it multiplies nothing."""
    if kind in ("conv1d", "conv2d", "conv3d"):
        out, w = outputs[0].shape, _weight(inputs, params)
        groups = int(attrs.get("groups", 1))
        return (Gemm(out[0] * prod(out[2:]), w[0] // groups, prod(w[1:]), 1, groups, "weight" in params),)
    if kind.startswith("conv_transpose"):
        x, w = inputs[0].shape, _weight(inputs, params)
        groups = int(attrs.get("groups", 1))
        return (Gemm(x[0] * prod(x[2:]), prod(w[1:]), w[0] // groups, 1, groups, "weight" in params),)
    if kind == "linear":
        w, x = _weight(inputs, params), inputs[0].shape
        return (Gemm(prod(x[:-1]), w[0], w[1], 1, 1, "weight" in params),)
    if kind == "matmul":
        return (_matmul([*(t.shape for t in inputs), *(t.shape for t in params.values())], bool(params)),)
    if kind == "attention":
        q, k, v = (t.shape for t in inputs[:3])
        count = prod(q[:-2])
        scores = Gemm(q[-2], k[-2], q[-1], count, 1, False)
        return scores, Gemm(q[-2], v[-1], k[-2], count, 1, False)
    if kind == "einsum":
        return _einsum(str(attrs.get("equation", "")), [t.shape for t in inputs], [p.shape for p in params.values()])
    if kind in ("lstm", "gru", "rnn"):
        return _recurrent(inputs[0].shape, params, attrs)
    return ()


def _weight(inputs: Sequence[_Shaped], params: Mapping[str, _Shaped]) -> tuple[int, ...]:
    return params["weight"].shape if "weight" in params else inputs[1].shape


def _matmul(shapes: Sequence[tuple[int, ...]], weight: bool) -> Gemm:
    a, b = shapes[0], shapes[1]
    m = a[-2] if len(a) > 1 else 1
    n = b[-1] if len(b) > 1 else 1
    if len(b) <= 2:  # one right operand for all leading rows: a single tall product
        return Gemm(prod(a[:-1]) if len(a) > 1 else 1, n, a[-1], 1, 1, weight)
    return Gemm(m, n, a[-1], max(prod(a[:-2]), prod(b[:-2])), 1, weight)


def _einsum(equation: str, inputs: Sequence[tuple[int, ...]], weights: Sequence[tuple[int, ...]]) -> tuple[Gemm, ...]:
    """Two operands only: shared letters of the result are a batch, letters the result lacks are summed."""
    terms, _, result = equation.replace(" ", "").partition("->")
    operands, shapes = terms.split(","), [*inputs, *weights]
    if len(operands) != 2 or len(shapes) != 2 or not result or "." in equation:
        return ()
    size = {c: n for term, shape in zip(operands, shapes, strict=True) for c, n in zip(term, shape, strict=True)}
    a, b = (set(t) for t in operands)
    out = set(result)

    def total(letters: set[str]) -> int:
        return prod(size[c] for c in letters)

    return (
        Gemm(
            total((a - b) & out),
            total((b - a) & out),
            total((a | b) - out),
            total(a & b & out),
            1,
            bool(weights),
        ),
    )


def _recurrent(x: tuple[int, ...], params: Mapping[str, _Shaped], attrs: Mapping[str, Any]) -> tuple[Gemm, ...]:
    steps, batch = (x[1], x[0]) if attrs.get("batch_first") else (x[0], x[1])
    products: list[Gemm] = []
    for role, p in params.items():
        if role.startswith("weight_ih"):
            products.append(Gemm(steps * batch, p.shape[0], p.shape[1]))
        elif role.startswith(("weight_hh", "weight_hr")):
            products.append(Gemm(batch, p.shape[0], p.shape[1], count=steps))
    return tuple(products)
