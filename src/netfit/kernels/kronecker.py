"""Chains of Kronecker-sparse factors in one pass over the samples, forward and backward.

These are plain functions and no torch operators: a call through the dispatcher costs as much as the whole product of
a small layer. `netfit.structured` wraps them in an autograd function, and runs plain torch wherever a graph is
recorded.
"""

import ctypes
import functools
import itertools
import os
import struct
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
_WORTH = 1 << 22  # multiply-accumulates that a thread of its own pays for: some hundred microseconds
_TILE = 32  # samples that the native code takes at once


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
    """Multiply by a chain of factors, on as many threads as torch has.

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
    parts = _parts(_view(x), packed.factors)
    _run([_call("forward", x, bias, None, y, y, packed, part) for part in parts])
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
    parts = _parts(_view(x), factors)
    own = [[torch.zeros_like(f) for f in factors] for _ in parts]  # two threads must not add to one gradient
    packed = [pack(factors, grads) for grads in own]
    _run([_call("backward", x, None, g, dx, g, p, part) for p, part in zip(packed, parts, strict=True)])
    for grads in own[1:]:
        torch._foreach_add_(own[0], grads)
    return dx, own[0]


class _View(NamedTuple):
    """Sizes of a tensor and their steps in floats."""

    groups: int
    features: int
    samples: int
    group: int
    feature: int
    sample: int


class _Part(NamedTuple):
    """What one thread does: a stretch of the groups or of the samples."""

    group: int
    groups: int
    sample: int
    samples: int

    def of(self, view: _View) -> tuple[int, _View]:
        """Bytes before it, and the view that it is."""
        sizes = view._replace(groups=self.groups, samples=self.samples)
        return 4 * (self.group * view.group + self.sample * view.sample), sizes


def _call(
    name: str, x: Tensor, bias: Tensor | None, g: Tensor | None, y: Tensor | None, out: Tensor, packed: Packed,
    part: _Part | None,
) -> tuple[Callable[[bytes], int], bytes]:  # fmt: skip
    library = _library()
    assert library is not None, "ready() was not asked"
    first, last, before, behind = _view(x), _view(out), 0, 0
    if part is not None:
        (before, first), (behind, last) = part.of(first), part.of(last)
    ahead = behind if name == "forward" else before  # y is the result, or the gradient of x
    places = x.data_ptr() + before, _address(bias, 0), _address(g, behind), _address(y, ahead)
    return library[name], _HEAD.pack(*places, len(packed.factors), packed.widest, *first, *last) + packed.words


def _address(tensor: Tensor | None, offset: int) -> int:
    return 0 if tensor is None else tensor.data_ptr() + offset


def _view(x: Tensor) -> _View:
    if x.ndim == 2:
        return _View(1, x.shape[1], x.shape[0], 0, 1, x.shape[1])
    return _View(x.shape[0], x.shape[1], x.shape[2], x.shape[1] * x.shape[2], x.shape[2], 1)


def _parts(x: _View, factors: Sequence[Tensor]) -> Sequence[_Part | None]:
    """One stretch a thread, of torch's number of threads; fewer where there is little to do. None is the whole."""
    work = x.groups * x.samples * sum(f.numel() for f in factors)
    count = min(torch.get_num_threads(), work // _WORTH)
    if count < 2:
        return [None]
    if x.groups >= count:
        cuts = [x.groups * i // count for i in range(count + 1)]
        return [_Part(a, b - a, 0, x.samples) for a, b in itertools.pairwise(cuts)]
    tiles = -(-x.samples // _TILE)
    cuts = sorted({min(x.samples, tiles * i // count * _TILE) for i in range(count + 1)})
    return [_Part(0, x.groups, a, b - a) for a, b in itertools.pairwise(cuts)]


def _run(calls: Sequence[tuple[Callable[[bytes], int], bytes]]) -> None:
    """All parts at once, the last one in this thread; the native code lets go of the interpreter's lock."""
    others = [_pool(len(calls) - 1).submit(function, words) for function, words in calls[:-1]]
    function, words = calls[-1]
    if function(words) or any(future.result() for future in others):
        raise MemoryError("no memory for the tiles of a structured product")


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "netfit-kronecker")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


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
