"""A linear layer or a convolution as matrix products, computed in another way but seen from outside as one call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["KINDS", "Product", "as_one_call", "bound", "product"]

KINDS = frozenset({"linear", "conv2d"})
_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class Product(NamedTuple):
    """The operands of one call as matrices.

    Attributes:
        x: (groups, rows, k).
        w: (groups, k, n).
        fold: from (groups, rows, n) to the result of the call, bias included.
    """

    x: Tensor
    w: Tensor
    fold: Callable[[Tensor], Tensor]


def as_one_call(kind: str, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `compute` in place of a torch call; whoever watches torch calls sees one call of that kind."""

    def op(*args: Any, **kwargs: Any) -> Any:
        if has_torch_function(args):
            return handle_torch_function(op, args, *args, **kwargs)
        return compute(*args, **kwargs)

    op.__name__ = kind
    return op(*args, **kwargs)


def bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a linear or convolution call by name."""
    return {"bias": None, **dict(zip(_NAMES, args, strict=False)), **kwargs}


def product(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Product:
    """A call of torch's ``linear`` or ``conv2d`` as one matrix product a group."""
    call = bound(args, kwargs)
    return _linear(call) if kind == "linear" else _conv2d(call)


def _linear(call: dict[str, Any]) -> Product:
    x, weight, bias = call["input"], call["weight"], call["bias"]

    def fold(y: Tensor) -> Tensor:
        y = y[0].reshape(*x.shape[:-1], -1)
        return y if bias is None else y + bias

    return Product(x.reshape(1, -1, x.shape[-1]), weight.t()[None], fold)


def _conv2d(call: dict[str, Any]) -> Product:
    x, weight, bias = call["input"], call["weight"], call["bias"]
    batched = x if x.ndim == 4 else x[None]
    stride, dilation = _pair(call.get("stride", 1)), _pair(call.get("dilation", 1))
    groups, kernel = call.get("groups", 1), weight.shape[2:]
    padded = F.pad(batched, _padding(call.get("padding", 0), kernel, dilation))
    height, width = (
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(padded.shape[2:], kernel, stride, dilation, strict=True)
    )
    patches = F.unfold(padded, kernel, dilation=dilation, stride=stride)  # (batch, groups * k, places)
    rows = patches.unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
    w = weight.flatten(1).unflatten(0, (groups, -1)).transpose(1, 2)

    def fold(y: Tensor) -> Tensor:
        y = y.unflatten(1, (len(batched), -1)).permute(1, 0, 3, 2).reshape(len(batched), -1, height, width)
        y = y if bias is None else y + bias[:, None, None]
        return y if x.ndim == 4 else y[0]

    return Product(rows, w, fold)


def _padding(padding: Any, kernel: torch.Size, dilation: tuple[int, int]) -> tuple[int, ...]:
    """What `F.pad` takes: left, right, top, bottom."""
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)
    high, wide = (0, 0) if padding == "valid" else _pair(padding)
    return (wide, wide, high, high)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = tuple(value)
    return (values[0], values[-1])
