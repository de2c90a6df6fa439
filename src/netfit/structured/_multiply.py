"""The product of all structured layers: native where values are computed, plain torch where a graph is recorded."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from netfit.errors import ConfigError
from netfit.kernels import kronecker

from ._chain import KSChain

__all__ = ["Ready", "eager", "fused", "ks_multiply"]

Layout = Literal["batch_first", "feature_first"]


def ks_multiply(
    x: Tensor,
    factors: Sequence[Tensor],
    bias: Tensor | None = None,
    *,
    out_features: int | None = None,
    layout: Layout = "batch_first",
) -> Tensor:
    """Multiply by a chain of Kronecker-sparse factors.

    Args:
        x: (..., features) for ``"batch_first"``; (features, samples) or (groups, features, samples) for
            ``"feature_first"``, which is what an image of channels is. It may have fewer features than the first
            factor reads: the missing ones are zero.
        factors: values (a, d, b, c) of the patterns, first applied first.
        bias: (out_features,), added to the product.
        out_features: crops the product; all that the last factor writes by default.
        layout: where the features are, in x and in the result.

    Returns:
        The product, laid out as x.

    Raises:
        ConfigError: sizes do not fit.

    Example:
        >>> factors = [torch.ones(p.shape) for p in KSChain.butterfly(4).patterns]
        >>> ks_multiply(torch.tensor([1.0, 2.0, 3.0, 4.0]), factors)
        tensor([10., 10., 10., 10.])
    """
    reads, writes = _sizes(factors)
    features = x.shape[-1 if layout == "batch_first" else -2] if x.ndim else 0
    out = writes if out_features is None else out_features
    if features > reads or out > writes:
        raise ConfigError(f"x with {features} features and {out} of the product: the chain is {reads} -> {writes}")
    if layout == "batch_first":
        if x.ndim == 2:  # a reshape to the same shape would still be two more steps of the backward pass
            return _multiply(x, factors, bias, out)
        y = _multiply(x.reshape(-1, features), factors, bias, out)
        return y.reshape(*x.shape[:-1], out)
    return _multiply(x, factors, bias, out) if x.ndim == 3 else _multiply(x.unsqueeze(0), factors, bias, out).squeeze(0)


def fused(factors: Sequence[Tensor], chain: KSChain) -> list[Tensor]:
    """Multiply out the runs of factors that are cheaper to apply as one (`KSChain.segments`).

    A factor of pattern (a, b, c, d) applied to c samples, where sample k holds ones in place k of every block, gives
    all its columns at once: so the fused values, and their gradients, are one more product by the chain.
    """
    done = []
    for pattern, (start, end) in zip(chain.fuse().patterns, chain.segments, strict=True):
        if end - start == 1:
            done.append(factors[start])
            continue
        a, b, c, d = pattern.a, pattern.b, pattern.c, pattern.d
        one = torch.eye(c, dtype=factors[start].dtype, device=factors[start].device)
        columns = one.view(1, c, 1, c).expand(a, c, d, c).reshape(1, a * c * d, c)
        product = _multiply(columns, factors[start:end], None, a * b * d)
        done.append(product.view(a, b, d, c).transpose(1, 2).contiguous())
    return done


class Ready:
    """Factors whose values stay, for inference: all that can be looked up once is.

    Args:
        factors: as of `ks_multiply`.
        out_features: of the product.
    """

    def __init__(self, factors: Sequence[Tensor], out_features: int) -> None:
        self.factors = [f.detach().contiguous() for f in factors]
        self._out = out_features
        self._packed = kronecker.pack(self.factors) if kronecker.ready(factors[0], factors) else None

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(..., features) -> (..., out_features); x must be `eager` and no gradient wanted."""
        if self._packed is None or not (x.dtype == torch.float32 and x.is_cpu and x.is_contiguous() and x.numel()):
            return ks_multiply(x, self.factors, bias, out_features=self._out)
        if x.ndim == 2:
            return kronecker.forward(x, self._packed, bias, self._out)
        y = kronecker.forward(x.reshape(-1, x.shape[-1]), self._packed, bias, self._out)
        return y.reshape(*x.shape[:-1], self._out)

    def __deepcopy__(self, memo: Any) -> "Ready":
        return Ready([f.clone() for f in self.factors], self._out)


def eager(x: Tensor) -> bool:
    """Whether values are computed here and now: no graph is recorded, and nobody watches the operations."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(x.device.type)
        and torch._C._len_torch_function_stack() == 0
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _sizes(factors: Sequence[Tensor]) -> tuple[int, int]:
    reads = writes = 0
    for i, f in enumerate(factors):
        a, d, b, c = f.shape
        if i and a * c * d != writes:
            raise ConfigError(f"factor {i + 1} expects {a * c * d} inputs, factor {i} gives {writes}")
        reads, writes = reads or a * c * d, a * b * d
    return reads, writes


def _multiply(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None, out: int) -> Tensor:
    """x is (samples, features) or (groups, features, samples)."""
    if eager(x) and kronecker.ready(x, factors):
        factors = [f.contiguous() for f in factors]
        if torch.is_grad_enabled():
            return _Chain.apply(x.contiguous(), bias, out, *factors)
        return kronecker.forward(x.contiguous(), kronecker.pack(factors), bias, out)
    y = _plain(x, factors) if x.ndim == 2 else _plain_channels(x, factors)
    features = y.shape[1]
    if out < features:
        y = y[:, :out]
    if bias is None:
        return y
    return y + (bias if x.ndim == 2 else bias[:, None]).to(y.dtype)  # autocast may have lowered y


class _Chain(torch.autograd.Function):
    """The native product with its hand-written gradient; only its input is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, out: int, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(x, *factors)
        return kronecker.forward(x, kronecker.pack(factors), bias, out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, *factors = ctx.saved_tensors
        dx, grads = kronecker.backward(x, factors, g.contiguous(), ctx.needs_input_grad[0])
        db = g.sum(0 if g.ndim == 2 else (0, 2)) if ctx.needs_input_grad[1] else None
        return dx, db, None, *grads


def _plain(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Reference for (samples, features); exported networks hold these operations."""
    x = _padded(x, factors[0], 0)
    for f in factors:
        a, d, b, c = f.shape
        if a == d == 1:
            x = F.linear(x, f.reshape(b, c))
        elif d == 1:
            x = (x.reshape(-1, a, c).transpose(0, 1) @ f.reshape(a, b, c).mT).transpose(0, 1).reshape(-1, a * b)
        else:
            y = x.reshape(-1, a, c, d).permute(1, 3, 0, 2) @ f.mT
            x = y.permute(2, 0, 3, 1).reshape(-1, a * b * d)
    return x


def _plain_channels(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Reference for (groups, features, samples)."""
    x = _padded(x, factors[0], 1)
    for f in factors:
        a, d, b, c = f.shape
        y = f @ x.reshape(-1, a, c, d, x.shape[-1]).transpose(2, 3)
        x = y.transpose(2, 3).reshape(-1, a * b * d, x.shape[-1])
    return x


def _padded(x: Tensor, first: Tensor, after: int) -> Tensor:
    missing = first.shape[0] * first.shape[1] * first.shape[3] - x.shape[1]
    return F.pad(x, (0, 0) * after + (0, missing)) if missing else x
