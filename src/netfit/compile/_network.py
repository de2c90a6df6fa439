"""The operators of a traced network that can be generated, each once, with the places that run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netfit.errors import ConfigError

from ._sizes import ConvSizes
from .ops import Conv2d, DepthwiseConv2d, Gemm, Operator

if TYPE_CHECKING:
    from netfit.workload import Op, Workload

__all__ = ["operators"]


def operators(workload: Workload) -> dict[Operator, list[str]]:
    """Convolutions and linear layers in fp32, as the kernels that compute them.

    Args:
        workload: of a network and an input, from :func:`netfit.workload.trace`.

    Returns:
        Distinct operators in their first order, each with the names of the call sites that run it. Convolutions with
        groups (other than depthwise ones) or dilation are left out.

    >>> import torch
    >>> from netfit.workload import trace
    >>> list(operators(trace(torch.nn.Linear(8, 4), torch.randn(2, 8))))[0].name
    'gemm float32 2x4x8'
    """
    found: dict[Operator, list[str]] = {}
    for op in workload:
        try:
            made = _operator(op)
        except ConfigError:  # sizes that no kernel is written for
            made = None
        if made is not None:
            found.setdefault(made, []).append(op.name)
    return found


def _operator(op: Op) -> Operator | None:
    weight = op.params.get("weight")
    if weight is None:
        return None
    x = op.inputs[0].shape
    if op.kind == "linear":
        rows = 1
        for size in x[:-1]:
            rows *= size
        return Gemm.of(rows, weight.shape[0], weight.shape[1])
    if op.kind != "conv2d" or len(x) != 4:
        return None
    stride, padding, dilation = (
        _pair(op.attrs.get(name, d)) for name, d in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    groups = int(op.attrs.get("groups", 1))
    if dilation != (1, 1) or groups not in (1, x[1]):
        return None
    z = ConvSizes(x[0], x[1], x[2], x[3], weight.shape[0], weight.shape[2], weight.shape[3], stride, padding, groups)
    return DepthwiseConv2d(z) if groups > 1 else Conv2d(z)


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, (list, tuple)):
        return int(value[0]), int(value[-1])
    if not isinstance(value, int):
        raise ConfigError(f"{value!r} is no size")
    return value, value
