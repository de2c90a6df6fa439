"""Means and variances through a whole network in one C call.

The arithmetic is that of `netfit.bayes.pfp`, which is the reference; Phi and phi share one exponential (absolute error
1.5e-7). Images are stored with the channels innermost, weights packed as [K][mean, variance][columns] so that one
stream feeds both products.
"""

import ctypes
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import source

__all__ = ["Kind", "MomentNet", "MomentOp"]

Kind = Literal["input", "pad", "product", "relu", "max_pool", "avg_pool", "add", "affine", "covariance"]
_FLAGS = ("-ffp-contract=fast", "-fno-math-errno")
_MOST_ROWS = 8  # of a pooling window
_CACHE_BYTES = 1 << 20  # what the activations of one tile may take
_INTS = ("c", "h", "w", "n", "oh", "ow", "kh", "kw", "sh", "sw", "ph", "pw")


@dataclass
class MomentOp:
    """One operator.

    Attributes:
        kind: what it does.
        out: number of the buffer it writes.
        inputs: numbers of the buffers it reads.
        c, h, w: channels, height and width of the input.
        n: columns of a product, or classes of a covariance.
        oh, ow: height and width of the output.
        kh, kw, sh, sw, ph, pw: window, steps and border.
        known: the input has no variance.
        relu, gain: apply a ReLU to the result; keep its mean slope.
        clark: of independent entries, else the entry with the largest mean.
        rho: correlation within a window.
        weight: mean and variance (n, kh * kw * c) of a product with channels innermost; scales (c,) of an affine map;
            means of the last layer (n, c) for a covariance.
        extra: mean and variance (n,) of a product's bias; shifts (c,); means of the hidden layer (c, h) for a
            covariance.
    """

    kind: Kind
    out: int
    inputs: tuple[int, ...] = ()
    c: int = 1
    h: int = 1
    w: int = 1
    n: int = 0
    oh: int = 1
    ow: int = 1
    kh: int = 1
    kw: int = 1
    sh: int = 1
    sw: int = 1
    ph: int = 0
    pw: int = 0
    known: bool = False
    relu: bool = False
    gain: bool = False
    clark: bool = False
    rho: float = 0.0
    weight: tuple[Tensor, ...] = field(default=(), repr=False)
    extra: tuple[Tensor, ...] = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Numbers of one image that it writes."""
        return self.oh * self.ow * (self.n if self.kind == "product" else self.c)


class _Op(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "in_", "in2", "out", "known", "relu", "gain", "clark", *_INTS)),
        ("panel", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("rho", ctypes.c_float),
        ("unused", ctypes.c_float),
        ("weight", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("plane", ctypes.c_int64)]


class _Net(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("ops", "buffers", "scratch")),
        *((name, ctypes.c_int64) for name in ("count", "tile", "in_size", "classes")),
    ]


@functools.cache
def _library() -> ctypes.CDLL:
    library = compile_c(source("vectors.h", "moments.c"), "moments", _FLAGS)
    library.moments_run.argtypes = [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 4]
    library.moments_run.restype = None
    return library


class MomentNet:
    """A network of moments with packed weights and reserved memory; one thread at a time may call it.

    Args:
        ops: in order; the last product's columns are the logits.
        shape: (batch, channels, height, width) or (batch, features) of the input.
        classes: logits.

    Raises:
        ConfigError: an operator is unknown, or a window is too high.
        TargetUnavailable: there is no C compiler.
        TargetError: the library cannot be built.
    """

    def __init__(self, ops: Sequence[MomentOp], shape: tuple[int, ...], classes: int) -> None:
        for op in ops:
            if op.kind not in get_args(Kind) or (op.kind == "max_pool" and op.kh > _MOST_ROWS):
                raise ConfigError(f"{op.kind} with a window of {op.kh} x {op.kw}: at most {_MOST_ROWS} rows")
        library = _library()
        self._lanes = int(library.moments_lanes())
        self.shape, self.classes, self.batch = tuple(shape), classes, shape[0]
        self.full = any(op.kind == "covariance" for op in ops)
        self._kept: list[Any] = []
        sizes = self._planes(ops)
        image = 4 * sum(sizes.values()) * 4
        tile = max(1, min(self.batch, _CACHE_BYTES // image))
        self._net = self._described(ops, sizes, tile)
        self._run, self._address = library.moments_run, ctypes.addressof(self._net)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and variance (batch, classes) of the logits, and their covariance (batch, classes, classes).

        Args:
            x: float32 of the prepared shape.

        Raises:
            ConfigError: another shape, type or device.
        """
        if x.shape != self.shape or x.dtype != torch.float32 or x.device.type != "cpu":
            raise ConfigError(f"an input {tuple(x.shape)} {x.dtype} on {x.device}: prepared for {self.shape} float32")
        x = x.contiguous()
        n, batch = self.classes, self.batch
        mean, var = torch.empty(batch, n), torch.empty(batch, n)
        cov = torch.empty(batch, n, n) if self.full else None
        at = None if cov is None else cov.data_ptr()
        self._run(self._address, batch, x.data_ptr(), mean.data_ptr(), var.data_ptr(), at)
        return mean, var, cov

    def _planes(self, ops: Sequence[MomentOp]) -> dict[int, int]:
        """Floats of one plane of each buffer: whole vectors, and one to spare for the last store."""
        sizes: dict[int, int] = {}
        for op in ops:
            if op.kind != "covariance":
                full = -(-op.size // self._lanes) + 1
                sizes[op.out] = max(sizes.get(op.out, 0), full * self._lanes)
        return sizes

    def _described(self, ops: Sequence[MomentOp], sizes: dict[int, int], tile: int) -> _Net:
        buffers = (_Buffer * (max(sizes) + 1))()
        for number, size in sizes.items():
            buffers[number] = _Buffer(self._keep(torch.zeros(tile * 4 * size + self._lanes)), size)
        table = (_Op * len(ops))(*(self._op(op, tile) for op in ops))
        last = next((op for op in ops if op.kind == "covariance"), None)
        near, deep = (0, 0) if last is None else (_up(last.c, self._lanes), _up(last.h, self._lanes))
        wide, n = near + deep, self.classes
        scratch = self._keep(torch.zeros(2 * wide + near + n * (near + wide)))
        self._kept += [buffers, table]
        size = math.prod(self.shape[1:])
        return _Net(
            ctypes.addressof(table), ctypes.addressof(buffers), scratch, len(ops), tile, size, self.classes
        )  # fmt: skip

    def _op(self, op: MomentOp, tile: int) -> _Op:
        weight, extra, panel = op.weight, op.extra, 0
        if op.kind == "product":
            rows = tile if op.oh * op.ow == 1 else op.ow
            panel = 4 if rows < 3 else 2  # few rows: long streams; many: more of them in registers
            weight, extra = _packed(op, panel, self._lanes)
        elif op.kind == "covariance":
            weight = tuple(_wide(t, self._lanes) for t in weight)
            extra = tuple(_with_squares(t, self._lanes) for t in extra)
        sources = (*op.inputs, 0, 0)[:2]
        own = _Op(
            get_args(Kind).index(op.kind), *sources, op.out, op.known, op.relu, op.gain, op.clark,
            *(getattr(op, name) for name in _INTS), panel, 0, op.rho, 0.0,
        )  # fmt: skip
        own.weight = self._keep(weight[0]) if weight else None
        own.extra = self._keep(extra[0]) if extra else None
        return own

    def _keep(self, tensor: Tensor) -> int:
        tensor = tensor.detach().float().contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _wide(x: Tensor, lanes: int) -> Tensor:
    """Rows filled up with zeros to whole vectors."""
    return torch.nn.functional.pad(x, (0, -x.shape[1] % lanes))


def _with_squares(x: Tensor, lanes: int) -> Tensor:
    """Rows of a matrix, then those of its squares transposed."""
    return torch.cat([_wide(x, lanes).flatten(), _wide(x.T.square(), lanes).flatten()])


def _packed(op: MomentOp, panel: int, lanes: int) -> tuple[tuple[Tensor], tuple[Tensor]]:
    """Weights as [panel][K][mean, variance][columns], starting sums as [panel][mean, variance][columns]."""
    mean, var = (torch.nn.functional.pad(t, (0, 0, 0, -op.n % lanes)) for t in op.weight)
    start = [torch.nn.functional.pad(t, (0, -op.n % lanes)) for t in op.extra]
    weights, starts = [], []
    for at in range(0, len(mean), panel * lanes):
        rows = slice(at, at + panel * lanes)
        weights.append(torch.stack([mean[rows].T, var[rows].T], 1).flatten())
        starts.append(torch.stack([t[rows] for t in start]).flatten())
    return (torch.cat(weights),), (torch.cat(starts),)
