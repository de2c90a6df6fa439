"""A linear layer that keeps blocks of its input and multiplies only those in the backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netfit.kernels import blocks

from ._kinds import LEAST
from .codecs import BlockSparse, weight_gradient

__all__ = ["sparse_linear", "sparse_linear_fits"]


def sparse_linear_fits(codec: BlockSparse, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether the product with blocks can take the place of unpacking: fp32, enough values, and a kernel for it."""
    plain = input.dtype == weight.dtype == torch.float32 and (input.is_cpu or blocks.ready(input, codec.block))
    large = input.numel() >= LEAST and input.requires_grad
    return plain and large and not torch.is_autocast_enabled(input.device.type)


def sparse_linear(codec: BlockSparse, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` with an exact gradient of the input, and the weight's from blocks of the input."""
    out: Tensor = _SparseLinear.apply(input, weight, bias, codec)
    return out


class _SparseLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, codec: BlockSparse) -> Tensor:
        packed = codec.pack(x)
        ctx.save_for_backward(weight, *packed.tensors)
        ctx.rows, ctx.shape = x.shape[:-1].numel(), x.shape
        return F.linear(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, values, at = ctx.saved_tensors
        flat = gradient.reshape(ctx.rows, -1)
        dx = (flat @ weight).view(ctx.shape) if ctx.needs_input_grad[0] else None
        dw = weight_gradient(flat, values, at, ctx.shape[-1]) if ctx.needs_input_grad[1] else None
        db = flat.sum(0) if ctx.needs_input_grad[2] else None
        return dx, dw, db, None
