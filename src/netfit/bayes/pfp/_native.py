"""A network of moments as operators of one C call (`netfit.kernels.moments`)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from netfit.bayes._gaussian import Gaussian
from netfit.errors import UnsupportedLayerError
from netfit.kernels.moments import MomentNet, MomentOp

from ._head import Head
from ._module import PFP, scaled
from ._pool import sizes_of
from ._program import Step

__all__ = ["native"]

_NOTHING = (
    "dropout", "feature_dropout", "identity", "contiguous", "clone", "alias", "detach", "flatten", "view", "reshape",
)  # fmt: skip
_FULL = 0.75  # share of a vector's lanes in use from which a ReLU is cheaper before it is stored


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: a buffer, and its image with channels innermost."""

    buffer: int
    c: int
    h: int = 1
    w: int = 1
    known: bool = False


class Builder:
    """Goes through the steps once and collects operators."""

    def __init__(self, pfp: PFP, batch: int) -> None:
        self.pfp, self.batch = pfp, batch
        self.weights = pfp.weights()
        self.ops: list[MomentOp] = []
        self.at: dict[str, Place] = {}
        self.made: dict[str, MomentOp] = {}  # operator behind a tensor
        self.readers: dict[str, int] = {pfp.program.output: 1}
        for step in pfp.program.steps:
            for name in step.inputs():
                self.readers[name] = self.readers.get(name, 0) + 1

    def build(self) -> MomentNet:
        """The network of all steps."""
        program, shape = self.pfp.program, self.pfp.shape
        if len(shape) not in (1, 3):
            raise UnsupportedLayerError(f"an input of shape {shape} is neither a vector nor an image")
        c, h, w = shape if len(shape) == 3 else (shape[0], 1, 1)
        first = Place(0, c, h, w, known=True)
        self.ops.append(MomentOp("input", 0, (), c, h, w, oh=h, ow=w))
        self.at[program.inputs[0]] = first
        for step in program.steps:
            self._add(step)
        out = self.at[program.output]
        if self.pfp.head is not None:
            self._covariance(self.pfp.head, out)
        return MomentNet(self.ops, (self.batch, *shape), out.c)

    def _add(self, step: Step) -> None:
        kind = step.kind.rstrip("_")
        if kind == "sym_size" or not any(name in self.at for name in step.inputs()):
            return  # sizes, and what is known without the input
        if kind in _NOTHING:
            source = step.inputs()[0]
            self.at[step.name] = self.at[source]
            if source in self.made:
                self.made[step.name] = self.made[source]
            self.readers[step.name] = max(self.readers.get(step.name, 0), self.readers[source])
            return
        known: dict[str, Callable[[Step, Place], Place]] = {
            "linear": self._linear, "conv2d": self._conv, "batch_norm": self._batch_norm, "relu": self._relu,
            "max_pool2d": self._max_pool, "avg_pool2d": self._avg_pool, "adaptive_avg_pool2d": self._avg_pool,
            "add": self._sum,
        }  # fmt: skip
        if kind not in known:
            raise UnsupportedLayerError(f"the native backend has no {step.target} (at {step.site!r}); another one has")
        self.at[step.name] = known[kind](step, self.at[step.inputs()[0]])
        if self.ops[-1].out == self.at[step.name].buffer:
            self.made[step.name] = self.ops[-1]

    def _new(self, op: MomentOp, c: int, known: bool = False) -> Place:
        op.out = 1 + max(o.out for o in self.ops)
        self.ops.append(op)
        return Place(op.out, c, op.oh, op.ow, known)

    def _weight(self, step: Step, i: int) -> tuple[Tensor, Tensor] | None:
        if len(step.args) <= i or step.args[i] is None:
            return None
        value = self.weights[step.args[i].name]
        mean, var = (value.mean, value.var) if isinstance(value, Gaussian) else (value, None)
        return mean.detach(), torch.zeros_like(mean) if var is None else var.detach()

    def _product(self, step: Step, x: Place, weight: tuple[Tensor, ...], **sizes: Any) -> Place:
        n = len(weight[0])
        bias = self._weight(step, 2) or (weight[0].new_zeros(n), weight[0].new_zeros(n))
        op = MomentOp("product", 0, (x.buffer,), x.c, x.h, x.w, n, known=x.known, weight=weight, extra=bias, **sizes)
        return self._new(op, n)

    def _linear(self, step: Step, x: Place) -> Place:
        weight = self._weight(step, 1)
        assert weight is not None
        if weight[0].shape[1] != x.c * x.h * x.w:
            raise UnsupportedLayerError(f"the native backend takes vectors at {step.site!r}")
        return self._product(step, x, tuple(inner(t, x) for t in weight), kh=x.h, kw=x.w)

    def _conv(self, step: Step, x: Place) -> Place:
        args = [*step.args, *[None, [1, 1], [0, 0], [1, 1], 1][len(step.args) - 2 :]]
        if step.kwargs or isinstance(args[4], str) or sizes_of(args[5], 2) != (1, 1) or args[6] != 1:
            raise UnsupportedLayerError(f"the native backend has no groups and dilation, unlike {step.site!r}")
        weight = self._weight(step, 1)
        assert weight is not None
        (sh, sw), (ph, pw) = sizes_of(args[3], 2), sizes_of(args[4], 2)
        kh, kw = weight[0].shape[2:]
        if ph or pw:
            op = MomentOp("pad", 0, (x.buffer,), x.c, x.h, x.w, oh=x.h + 2 * ph, ow=x.w + 2 * pw, ph=ph, pw=pw)
            x = self._new(op, x.c, x.known)
        oh, ow = (x.h - kh) // sh + 1, (x.w - kw) // sw + 1
        last = tuple(t.permute(0, 2, 3, 1).flatten(1) for t in weight)
        return self._product(step, x, last, oh=oh, ow=ow, kh=kh, kw=kw, sh=sh, sw=sw)

    def _batch_norm(self, step: Step, x: Place) -> Place:
        state: list[Any] = [None if a is None else self.weights[a.name].detach() for a in step.args[1:5]]
        weight, bias, mean, var = state
        scale = torch.rsqrt(var + step.args[7]) * (1.0 if weight is None else weight)
        shift = (0.0 if bias is None else bias) - mean * scale
        source = step.inputs()[0]
        before = self.made.get(source)
        if before is not None and before.kind == "product" and self.readers[source] == 1 and not before.relu:
            before.weight = before.weight[0] * scale[:, None], before.weight[1] * scale[:, None].square()
            before.extra = before.extra[0] * scale + shift, before.extra[1] * scale.square()
            return x
        op = MomentOp(
            "affine", 0, (x.buffer,), x.c, x.h, x.w, oh=x.h, ow=x.w, known=x.known, weight=(scale,), extra=(shift,)
        )
        return self._new(op, x.c, x.known)

    def _relu(self, step: Step, x: Place) -> Place:
        source = step.inputs()[0]
        before, alone = self.made.get(source), self.readers[source] == 1
        lanes = 16
        used = x.c / (-(-x.c // lanes) * lanes)
        if before is not None and before.kind == "product" and alone and used >= _FULL and not before.relu:
            before.relu = True
            return x
        op = MomentOp("relu", x.buffer, (x.buffer,), x.c, x.h, x.w, oh=x.h, ow=x.w)
        if alone:
            self.ops.append(op)  # in place
            return replace(x, known=False)
        return self._new(op, x.c)

    def _max_pool(self, step: Step, x: Place) -> Place:
        args = [*step.args[1:], *[None, 0, 1, False][len(step.args) - 2 :]]
        (kh, kw), (sh, sw) = sizes_of(args[0], 2), sizes_of(args[1] or args[0], 2)
        if any(sizes_of(args[2], 2)) or sizes_of(args[3], 2) != (1, 1) or args[4]:
            raise UnsupportedLayerError(f"the native backend pools without border and dilation, unlike {step.site!r}")
        oh, ow = (x.h - kh) // sh + 1, (x.w - kw) // sw + 1
        clark = step.settings["how"] == "clark"
        op = MomentOp("max_pool", 0, (x.buffer,), x.c, x.h, x.w, oh=oh, ow=ow, kh=kh, kw=kw, sh=sh, sw=sw, clark=clark)
        return self._new(op, x.c)

    def _avg_pool(self, step: Step, x: Place) -> Place:
        if step.kind.startswith("adaptive"):
            oh, ow = sizes_of(step.args[1], 2)
            kh, kw = x.h // oh, x.w // ow
            sh, sw = kh, kw
        else:
            if len(step.args) > 3 or step.kwargs:
                raise UnsupportedLayerError(f"the native backend averages without border, unlike {step.site!r}")
            stride = (step.args[2] if len(step.args) > 2 else None) or step.args[1]
            (kh, kw), (sh, sw) = sizes_of(step.args[1], 2), sizes_of(stride, 2)
            oh, ow = (x.h - kh) // sh + 1, (x.w - kw) // sw + 1
        op = MomentOp(
            "avg_pool", 0, (x.buffer,), x.c, x.h, x.w, oh=oh, ow=ow, kh=kh, kw=kw, sh=sh, sw=sw,
            rho=step.settings["rho"],
        )  # fmt: skip
        return self._new(op, x.c)

    def _sum(self, step: Step, x: Place) -> Place:
        other = self.at.get(step.inputs()[1]) if len(step.inputs()) == 2 else None
        if other is None or (other.c, other.h, other.w) != (x.c, x.h, x.w) or other == x or step.kwargs:
            raise UnsupportedLayerError(f"the native backend adds two tensors of one shape, unlike {step.site!r}")
        op = MomentOp("add", 0, (x.buffer, other.buffer), x.c, x.h, x.w, oh=x.h, ow=x.w)
        return self._new(op, x.c)

    def _covariance(self, head: Head, out: Place) -> None:
        """Logits' covariance, through the hidden layer where there is one with random inputs."""
        x = self.at[head.last.inputs()[0]]
        last = self._weight(head.last, 1)
        assert last is not None
        units = x.c * x.h * x.w
        op = MomentOp("covariance", out.buffer, (x.buffer,), units, 0, n=out.c, weight=(inner(last[0], x),))
        if head.activation is not None and head.hidden is not None:
            before, hidden = self.at[head.hidden.inputs()[0]], self._weight(head.hidden, 1)
            assert hidden is not None
            if not before.known:
                self._producer(x.buffer).gain = True
                op.inputs, op.h = (x.buffer, before.buffer), before.c * before.h * before.w
                op.extra = (inner(hidden[0], before),)
        self.ops.append(op)

    def _producer(self, buffer: int) -> MomentOp:
        """The operator that writes a buffer last."""
        return next(op for op in reversed(self.ops) if op.out == buffer)


def inner(weight: Tensor, x: Place) -> Tensor:
    """Columns of a linear layer's weight in the order in which the image lies: channels innermost."""
    if x.h * x.w == 1 or x.c == 1:
        return weight
    return weight.reshape(-1, x.c, x.h, x.w).permute(0, 2, 3, 1).flatten(1)


def native(pfp: PFP, batch: int) -> Callable[[Tensor], Gaussian]:
    """The whole pass as one C call for batches of one size."""
    net: Any = Builder(pfp, batch).build()
    scale = pfp.scale

    def run(x: Tensor) -> Gaussian:
        return scaled(Gaussian(*net(x)), scale)

    return run
