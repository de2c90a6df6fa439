"""Chains of Kronecker-sparse factors in one pass over the samples, forward and backward.

These are plain functions and no torch operators: a call through the dispatcher costs as much as the whole product of
a small layer. `netfit.structured` wraps them in an autograd function, and runs plain torch wherever a graph is
recorded.
"""

import ctypes
import functools
import os
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from netfit.errors import TargetError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import source

__all__ = ["Packed", "backward", "forward", "pack", "ready"]

# Sums of products may be rounded once: they are compared with torch's to a tolerance, not bit for bit.
_FLAGS = ("-ffp-contract=fast",)
_HEAD = struct.Struct("18q")  # of the `Call` of kronecker.c, every field of which is eight bytes
_FACTOR = struct.Struct("8q")


class Packed(NamedTuple):
    """Factors as the native code reads them; valid as long as their memory is.

    Attributes:
        factors: the tensors, which must stay where they are.
        words: their addresses and sizes.
        widest: the largest number of features before or after one.
    """

    factors: tuple[Tensor, ...]
    words: bytes
    widest: int


def ready(x: Tensor, factors: Sequence[Tensor]) -> bool:
    """Whether the native code can take these tensors: float32 in main memory, and a compiler was found.

    Args:
        x: input.
        factors: weights of the chain.
    """
    for t in (x, *factors):
        if t.dtype is not torch.float32 or not t.is_cpu:
            return False
    if not x.numel():
        return False
    return os.environ.get("NETFIT_CC") != "none" and _library() is not None


def pack(factors: Sequence[Tensor], grads: Sequence[Tensor] | None = None) -> Packed:
    """Look up what `forward` and `backward` need of the factors.

    Args:
        factors: contiguous float32 (a, d, b, c): a*d blocks of b x c; block (i, l) maps x viewed (a, c, d) to
            (a, b, d). The first is applied first.
        grads: of the same shapes, which `backward` adds to.
    """
    widest, words = 0, b""
    for i, f in enumerate(factors):
        a, d, b, c = f.shape
        widest = max(widest, a * d * max(b, c))
        words += _FACTOR.pack(a, b, c, d, c, 1, f.data_ptr(), grads[i].data_ptr() if grads else 0)
    return Packed(tuple(factors), words, widest)


def forward(x: Tensor, packed: Packed, bias: Tensor | None, features: int) -> Tensor:
    """Multiply by a chain of factors.

    Args:
        x: contiguous float32, (samples, features) or (groups, features, samples). It may have fewer features than
            the first factor takes: the others are zero.
        packed: the factors.
        bias: contiguous float32 of shape (features,), or None.
        features: of the result, which is cropped to them.

    Returns:
        The product, in the layout of x.
    """
    y = x.new_empty((x.shape[0], features) if x.ndim == 2 else (x.shape[0], features, x.shape[2]))
    _call("forward", x, bias, None, y, y, packed)
    return y


def backward(x: Tensor, factors: Sequence[Tensor], g: Tensor, input_grad: bool) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of `forward`; what lies between the factors is computed again.

    Args:
        x: its input.
        factors: its factors.
        g: gradient of its result, contiguous.
        input_grad: whether the gradient of x is wanted.

    Returns:
        The gradient of x (or None), and those of the factors.
    """
    dx = torch.empty_like(x) if input_grad else None
    grads = [torch.zeros_like(f) for f in factors]
    _call("backward", x, None, g, dx, g, pack(factors, grads))
    return dx, grads


def _call(
    name: str, x: Tensor, bias: Tensor | None, g: Tensor | None, y: Tensor | None, out: Tensor, packed: Packed
) -> None:
    library = _library()
    assert library is not None, "ready() was not asked"
    sizes = len(packed.factors), packed.widest, *_view(x), *_view(out)
    if library[name](_HEAD.pack(x.data_ptr(), _address(bias), _address(g), _address(y), *sizes) + packed.words):
        raise MemoryError(f"no memory for the tiles of {packed.widest} features")


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _view(x: Tensor) -> tuple[int, ...]:
    """Groups, features and samples, and their steps."""
    if x.ndim == 2:
        return 1, x.shape[1], x.shape[0], 0, 1, x.shape[1]
    return x.shape[0], x.shape[1], x.shape[2], x.shape[1] * x.shape[2], x.shape[2], 1


@functools.cache
def _library() -> dict[str, Callable[[bytes], int]] | None:
    try:
        library = compile_c(source("kronecker.c"), "kronecker", _FLAGS)
    except TargetError as e:
        warnings.warn(f"structured layers run their slower torch form: {e}", RuntimeWarning, stacklevel=2)
        return None
    functions: dict[str, Callable[[bytes], int]] = {}
    for name in ("forward", "backward"):
        function = library[f"kronecker_{name}"]
        function.argtypes, function.restype = [ctypes.c_char_p], ctypes.c_int
        functions[name] = function
    return functions
