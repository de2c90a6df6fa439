"""A convolution whose backward pass goes through the batch in stretches, because its workspaces are tensors' size.

On a CPU the library brings the gradient, the input and the result into a layout of its own: three more tensors as
large as the largest, beside the input that was unpacked. In stretches these are small, and the gradient of a stretch
takes the place of the unpacked input, which nothing reads any more.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["convolution", "convolution_fits", "written_over"]

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_STRETCH, _MOST = 1 << 20, 8  # least bytes of a stretch of the input, and how many at the most


def convolution_fits(func: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether `convolution` can take a call's place: a large fp32 batch on a CPU, computed here and now."""
    if func not in _CONVOLUTIONS:
        return False
    call = dict(zip(("input", "weight", "bias", "stride", "padding"), args, strict=False)) | kwargs
    x, weight = call["input"], call["weight"]
    plain = x.dtype == weight.dtype == torch.float32 and x.is_cpu and not torch.is_autocast_enabled("cpu")
    large = x.ndim == weight.ndim and x.nbytes >= 2 * _STRETCH and not isinstance(call.get("padding"), str)
    return plain and large and torch._C._functorch.peek_interpreter_stack() is None


def written_over(kind: str, nbytes: int) -> bool:
    """Whether the gradient takes the place of what was unpacked, so that a tensor that is kept saves no second one."""
    return kind in {f.__name__ for f in _CONVOLUTIONS} and nbytes >= 2 * _STRETCH


def convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    """``F.conv1d``, ``F.conv2d`` or ``F.conv3d``; what it saves is its input."""
    dims = input.ndim - 2
    listed = [[s] * dims if isinstance(s, int) else list(s) * (dims // len(s)) for s in (stride, padding, dilation)]
    out: Tensor = _Convolution.apply(input, weight, bias, *listed, groups)
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
        ctx.save_for_backward(x)
        # Not saved like the input: the hooks are for that alone, and an input must not be unpacked with a weight.
        ctx.weight, ctx.version, ctx.settings = weight, weight._version, settings
        ctx.storage = StorageWeakRef(x.untyped_storage())
        stride, padding, dilation, groups = settings
        return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,), weight = ctx.saved_tensors, ctx.weight
        if weight._version != ctx.version:
            raise RuntimeError(
                f"a weight of shape {tuple(weight.shape)} that the backward pass needs was changed by an in-place "
                f"operation: it is at version {weight._version}, expected {ctx.version}"
            )
        wanted, none = list(ctx.needs_input_grad[:3]), (None,) * 4
        if torch.is_grad_enabled() or x.nbytes < 2 * weight.nbytes:
            return (*_gradients(ctx, gradient, x, weight, wanted), *none)
        kept = not ctx.storage.expired() and ctx.storage.cdata == x.untyped_storage()._cdata
        dx = (torch.empty_like(x) if kept else x.detach()) if wanted[0] else None
        sums: list[Tensor | None] = [None, None]
        parts = min(_MOST, x.nbytes // _STRETCH, len(x))
        cuts = [len(x) * i // parts for i in range(parts + 1)]
        for start, end in pairwise(cuts):
            part, *others = _gradients(ctx, gradient[start:end], x[start:end], weight, wanted)
            if dx is not None and part is not None:
                dx[start:end] = part
            sums = [
                old.add_(new) if old is not None and new is not None else new
                for old, new in zip(sums, others, strict=True)
            ]
        return (dx, *sums, *none)


def _gradients(ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
    stride, padding, dilation, groups = ctx.settings
    sizes = [len(weight)] if wanted[2] else None
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        gradient, x, weight, sizes, stride, padding, dilation, False, [0] * len(stride), groups, wanted
    )
    return found
