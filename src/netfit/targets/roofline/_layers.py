"""The convolutions and products of a network, each timed in several implementations and explained."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from netfit.errors import ConfigError, did_you_mean
from netfit.kernels.dense import CHANNELS, ConvShape, Prepared, channel_words, naive
from netfit.workload import Op, Workload

from .._measure import Timing, measure
from .._profile import torch_threads
from ._explain import Explanation, explain
from ._nests import Work, blocked, least, plain
from ._peaks import Peaks

IMPLEMENTATIONS = ("netfit", "torch", "naive")
PRECISIONS = tuple(CHANNELS)


@dataclass(frozen=True)
class Layer:
    """One implementation of one layer on this machine.

    Attributes:
        name: site of the first layer of this shape.
        product: ``"conv"``, or ``"gemm"`` for the product of matrices.
        shape: sizes.
        implementation: ``"netfit"``, ``"torch"`` or ``"naive"``.
        precision: ``"fp32"``, ``"int8"`` or ``"bits"`` (one-bit codes times -1 and +1).
        explanation: its time beside the bounds.
        noisy: whether the machine was too busy for a narrow interval.
    """

    name: str
    product: str
    shape: ConvShape
    implementation: str
    precision: str
    explanation: Explanation
    noisy: bool


def explain_layers(
    workload: Workload,
    peaks: Peaks,
    *,
    precisions: Sequence[str] = PRECISIONS,
    implementations: Sequence[str] = IMPLEMENTATIONS,
    as_gemm: bool = False,
    budget_s: float = 0.5,
    seed: int = 0,
) -> Iterator[Layer]:
    """Time the convolutions and linear layers of a network and name the bound of each; equal shapes once.

    netfit and torch run in turns. Our convolutions pack what they are given; our int8 and bit-serial products of
    matrices take words that are packed already, as a layer before leaves them. torch has no bit-serial kernels, and
    int8 ones only for products. Grouped convolutions and uneven strides are left out.

    Args:
        workload: the traced network.
        peaks: of this machine.
        precisions: among ``"fp32"``, ``"int8"``, ``"bits"``.
        implementations: among ``"netfit"``, ``"torch"``, ``"naive"``.
        as_gemm: take each convolution as the product of matrices it is lowered to.
        budget_s: wall seconds for one shape in one precision, and as many for the naive nest.
        seed: of the operands and of the order.

    Raises:
        ConfigError: an unknown precision or implementation, or nothing to explain.
        TargetUnavailable: there is no C compiler.
    """
    for what, given, known in (
        ("precision", precisions, PRECISIONS),
        ("implementation", implementations, IMPLEMENTATIONS),
    ):
        for word in given:
            if word not in known:
                raise ConfigError(f"{what} {word!r}; {did_you_mean(word, known)}")
    shapes: dict[ConvShape, str] = {}
    for op in workload:
        shape = shape_of(op, as_gemm)
        if shape is not None:
            shapes.setdefault(shape, op.name)
    if not shapes:
        raise ConfigError(f"none of the {len(workload)} operators is a convolution without groups or a linear layer")
    for shape, name in shapes.items():
        for precision in precisions:
            yield from _explained(name, shape, precision, implementations, peaks, budget_s, seed)


def shape_of(op: Op, as_gemm: bool = False) -> ConvShape | None:
    """Sizes of a convolution or a linear layer, None for what the kernels do not compute."""
    if op.kind == "linear" or (op.kind == "conv2d" and as_gemm):
        product = next(iter(op.gemms()))
        return ConvShape.gemm(product.n, product.m, product.k) if product.groups == 1 else None
    if op.kind != "conv2d" or "weight" not in op.params:
        return None
    batch, _, height, width = op.inputs[0].shape
    rows, channels, taps_h, taps_w = op.params["weight"].shape
    stride, padding, dilation = (
        tuple(op.attrs.get(key, (usual, usual))) for key, usual in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    uneven = any(len(set(steps)) != 1 for steps in (stride, padding, dilation))
    if uneven or op.inputs[0].shape[1] != channels:
        return None
    return ConvShape(rows, channels, height, width, taps_h, taps_w, stride[0], padding[0], dilation[0], batch)


def _explained(
    name: str,
    shape: ConvShape,
    precision: str,
    implementations: Sequence[str],
    peaks: Peaks,
    budget_s: float,
    seed: int,
) -> Iterator[Layer]:
    made = _candidates(shape, precision, peaks.vector_bytes // 4, seed)
    found: dict[str, Timing] = {}
    slow = {"naive"} & set(implementations)  # by itself: one call of it may take as long as all others together
    for names in (set(implementations) - slow, slow):
        calls = {key: made[key][0] for key in implementations if key in names and key in made}
        if calls:
            with torch_threads(1):
                found |= measure(calls, yardstick=next(iter(calls)), budget_s=budget_s, seed=seed).timings
    product = "gemm" if shape.height == 1 and shape.is_product else "conv"
    for key, timing in found.items():
        explanation = explain(f"{name} {key} {precision}", made[key][1], timing.seconds, peaks)
        yield Layer(name, product, shape, key, precision, explanation, timing.noisy)


def _candidates(shape: ConvShape, precision: str, lanes: int, seed: int) -> dict[str, tuple[Callable[[], Any], Work]]:
    """What to call, and what it does."""
    x, w = _operands(shape, precision, seed)
    packed = shape.height == 1 and shape.is_product and precision != "fp32"
    ready = Prepared(shape, w, precision=precision, packed=packed)  # type: ignore[arg-type]  # one of PRECISIONS
    given = channel_words(x, precision) if packed else x  # type: ignore[arg-type]
    out = ready(given)
    found: dict[str, tuple[Callable[[], Any], Work]] = {"netfit": (lambda: ready(given, out), blocked(ready))}
    theirs = _torch(shape, precision, x, w)
    if theirs is not None:
        found["torch"] = theirs, least(shape, precision, lanes)
    bits = (channel_words(x), channel_words((w > 0).to(torch.uint8))) if precision == "bits" else (x, w)
    found["naive"] = naive(shape, *bits), plain(shape, precision, lanes)
    return found


def _operands(shape: ConvShape, precision: str, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_shape = (shape.batch, shape.channels, shape.height, shape.width)
    w_shape = (shape.rows, shape.channels, shape.taps_h, shape.taps_w)
    if precision == "fp32":
        return torch.randn(x_shape, generator=generator), torch.randn(w_shape, generator=generator)
    if precision == "int8":
        x, w = (torch.randint(-128, 128, s, dtype=torch.int8, generator=generator) for s in (x_shape, w_shape))
        return x, w
    x = torch.randint(0, 2, x_shape, dtype=torch.uint8, generator=generator)
    return x, 2 * torch.randint(0, 2, w_shape, dtype=torch.int8, generator=generator) - 1


def _torch(shape: ConvShape, precision: str, x: Tensor, w: Tensor) -> Callable[[], Tensor] | None:
    is_gemm = shape.height == 1 and shape.is_product
    a, b = w[:, :, 0, 0], x[0, :, 0]
    if precision == "fp32":
        if is_gemm:
            return lambda: a @ b
        steps = shape.stride, shape.padding, shape.dilation
        return lambda: torch.nn.functional.conv2d(x, w, None, *steps)
    if precision == "int8" and is_gemm and shape.rows > 16:  # torch._int_mm takes no fewer rows
        return lambda: torch._int_mm(a, b)
    return None
