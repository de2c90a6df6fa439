"""Sums that saturate at every step, as in an analog array whose accumulator has a limited range.

"On the Non-Associativity of Analog Computations" (2023) shows that the order of operands then matters. Only the last
step that saturated has to be remembered for the exact gradient: what came before it is forgotten, what came after it
counts as in a plain product.
"""

import ctypes
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import custom_op, source

__all__ = ["ordered_matmul"]

_FLAGS = ("-ffp-contract=fast",)
_NOT_FINITE = 2


def _steps(x: Tensor, w: Tensor, lo: float, hi: float, leak: float) -> tuple[Tensor, Tensor]:
    v = x.new_zeros((x.shape[0], w.shape[1]))
    last = torch.full_like(v, -1)
    for k in range(x.shape[1]):
        free = torch.addcmul(v if leak == 1 else v * leak, x[:, k, None], w[k])
        v = free.clamp(lo, hi)
        last = torch.where(free == v, last, k)
    return v, last


def _plain_reference(x: Tensor, w: Tensor, lo: float, hi: float, leak: float) -> Tensor:
    return _steps(x, w, lo, hi, leak)[0]


def _tracked_reference(x: Tensor, w: Tensor, lo: float, hi: float, leak: float) -> tuple[Tensor, Tensor]:
    return _steps(x, w, lo, hi, leak)


def _backward_reference(grad: Tensor, x: Tensor, w: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    dx, dw = torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(w)
    for k in range(x.shape[1]):
        reached = grad * (last < k)
        dx[:, k] = reached @ w[k]
        dw[k] = x[:, k] @ reached
    return dx, dw


def _plain_fake(x: Tensor, w: Tensor, lo: float, hi: float, leak: float) -> Tensor:
    return x.new_empty((x.shape[0], w.shape[1]))


def _tracked_fake(x: Tensor, w: Tensor, lo: float, hi: float, leak: float) -> tuple[Tensor, Tensor]:
    return _plain_fake(x, w, lo, hi, leak), _plain_fake(x, w, lo, hi, leak)


def _backward_fake(grad: Tensor, x: Tensor, w: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), w.new_empty(w.shape)


def _rows(x: Tensor) -> Tensor:
    """`x` with neighbouring numbers in a row; the rows themselves may lie apart, as those of one tile of rows do."""
    return x if x.stride(1) == 1 and x.stride(0) >= x.shape[1] else x.contiguous()


def _forward_native() -> Callable[..., bool]:
    function = compile_c(source("ordered.c"), "ordered", _FLAGS).ordered_forward
    function.argtypes = [*[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 4, *[ctypes.c_float] * 3, *[ctypes.c_void_p] * 2]

    def run(x: Tensor, w: Tensor, law: tuple[float, float, float], out: Tensor, last: Tensor | None) -> bool:
        """False when the operands are none of the native code's: other types, or numbers that are not finite."""
        if x.dtype != torch.float32 or w.dtype != torch.float32:
            return False
        x, w = _rows(x), w.contiguous()
        sizes = (*x.shape, w.shape[1], x.stride(0))
        steps = None if last is None else last.data_ptr()
        status = function(x.data_ptr(), w.data_ptr(), *sizes, *law, out.data_ptr(), steps)
        if status not in (0, _NOT_FINITE):
            raise MemoryError("ordered_matmul found no memory for its operands")
        return status == 0

    return run


def _plain_native() -> Callable[..., Tensor]:
    forward = _forward_native()

    def run(x: Tensor, w: Tensor, lo: float, hi: float, leak: float) -> Tensor:
        out = _plain_fake(x, w, lo, hi, leak)
        return out if forward(x, w, (lo, hi, leak), out, None) else _plain_reference(x, w, lo, hi, leak)

    return run


def _tracked_native() -> Callable[..., tuple[Tensor, Tensor]]:
    forward = _forward_native()

    def run(x: Tensor, w: Tensor, lo: float, hi: float, leak: float) -> tuple[Tensor, Tensor]:
        out, last = _tracked_fake(x, w, lo, hi, leak)
        if forward(x, w, (lo, hi, leak), out, last):
            return out, last
        return _tracked_reference(x, w, lo, hi, leak)

    return run


def _backward_native() -> Callable[..., tuple[Tensor, Tensor]]:
    function = compile_c(source("ordered.c"), "ordered", _FLAGS).ordered_backward
    function.argtypes = [*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 4, *[ctypes.c_void_p] * 2]

    def run(grad: Tensor, x: Tensor, w: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        if not all(t.dtype == torch.float32 for t in (grad, x, w)):
            return _backward_reference(grad, x, w, last)
        grad, x, w, (dx, dw) = grad.contiguous(), _rows(x), w.contiguous(), _backward_fake(grad, x, w, last)
        pointers = (t.data_ptr() for t in (grad, x, w, last))
        if function(*pointers, *x.shape, w.shape[1], x.stride(0), dx.data_ptr(), dw.data_ptr()):
            raise MemoryError("the gradient of ordered_matmul found no memory for its operands")
        return dx, dw

    return run


_plain = custom_op("ordered_matmul", _plain_reference, native=_plain_native, fake=_plain_fake)
_tracked = custom_op("ordered_matmul_tracked", _tracked_reference, native=_tracked_native, fake=_tracked_fake)
_backward = custom_op("ordered_matmul_backward", _backward_reference, native=_backward_native, fake=_backward_fake)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w, _, _, ctx.leak = inputs
    ctx.save_for_backward(x, w, output[1])
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    if grad is None:
        return None, None, None, None, None
    x, w, last = ctx.saved_tensors
    dx, dw = _backward(grad, x, w, last)
    if ctx.leak != 1:
        forgotten = ctx.leak ** torch.arange(len(w) - 1, -1, -1, dtype=w.dtype, device=w.device)
        dx, dw = dx * forgotten, dw * forgotten[:, None]
    return dx, dw, None, None, None


torch.library.register_autograd("netfit::ordered_matmul_tracked", _gradient, setup_context=_remember)


def ordered_matmul(x: Tensor, w: Tensor, lo: float, hi: float, leak: float = 1.0, perm: Tensor | None = None) -> Tensor:
    """Multiply matrices with a sum that saturates at every step: v = clamp(leak * v + x[:, k] * w[k], lo, hi).

    The gradient is exact, and costs O(batch, columns) of memory beyond the operands. float32 on a CPU runs in C;
    everything else in plain torch, step by step.

    "On the Non-Associativity of Analog Computations" (Kuhn, Klein et al., 2023).

    Args:
        x: (batch, k), floating point.
        w: (k, columns), of the same dtype.
        lo: smallest sum, at most 0.
        hi: largest sum, at least 0.
        leak: share of the sum that is left after one step, 0 < leak <= 1.
        perm: int64 (k,), the order in which the steps are taken; as they stand when None.

    Returns:
        (batch, columns), between `lo` and `hi`.

    Raises:
        ConfigError: shapes, dtypes, the range, the leak or the order cannot be used.

    Example:
        >>> x, w = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[2.0], [2.0], [-1.0]])
        >>> ordered_matmul(x, w, lo=-3, hi=3), ordered_matmul(x, w, -3, 3, perm=torch.tensor([0, 2, 1]))
        (tensor([[2.]]), tensor([[3.]]))
    """
    _check(x, w, lo, hi, leak)
    if perm is not None:
        _check_order(perm, len(w))
        x, w = x[:, perm], w[perm]
    if torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
        out: Tensor = _tracked(x, w, lo, hi, leak)[0]
    else:
        out = _plain(x, w, lo, hi, leak)
    return out


def _check(x: Tensor, w: Tensor, lo: float, hi: float, leak: float) -> None:
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[0]:
        raise ConfigError(f"shapes {tuple(x.shape)} and {tuple(w.shape)} of an ordered product: give (b, k) and (k, n)")
    if x.dtype != w.dtype or not x.dtype.is_floating_point:
        raise ConfigError(f"an ordered product of {x.dtype} and {w.dtype}: give two of one floating-point type")
    if not (math.isfinite(lo) and math.isfinite(hi) and lo <= 0 <= hi and lo < hi):
        raise ConfigError(f"lo={lo} and hi={hi} of a saturating sum: give finite lo <= 0 <= hi that differ")
    if not 0 < leak <= 1:
        raise ConfigError(f"leak={leak} of a saturating sum: choose 0 < leak <= 1 (1 forgets nothing)")


def _check_order(perm: Tensor, steps: int) -> None:
    if perm.dtype != torch.int64 or perm.shape != (steps,):
        raise ConfigError(f"an order of shape {tuple(perm.shape)} and {perm.dtype}: give int64 ({steps},)")
    if not torch.compiler.is_compiling() and not torch.equal(perm.sort().values, torch.arange(steps).to(perm.device)):
        raise ConfigError(f"an order of {steps} steps must be a permutation: it names one twice or leaves one out")
