"""`Quantize`: low precision at a layer, simulated exactly as the exported file will compute it.

Fake quantization acts through call-site hooks: weights per output channel, activations per tensor, at the places the
plan names. A per-channel symmetric weight scale commutes with BatchNorm folding, so training with BatchNorm unfolded
scores the very integers that are exported.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from netfit.errors import ConfigError, UnsupportedLayerError
from netfit.quant import Binary, FakeQuantize
from netfit.train import recalibrate
from netfit.workload import Op, Workload, trace

from ._bits import BIT_PRECISIONS, RoundOperands
from ._hooks import CallHook, first_tensor, hooks_of, install
from ._plan import LAYER_KINDS, QuantPlan, plan_quantization
from ._technique import Mechanism, Site, Stage, Technique

__all__ = ["Quantization", "Quantize", "calibrate"]

Key = tuple[str, int]
_BF16, _FP32 = 16, 32


@dataclass(frozen=True)
class Quantize(Technique):
    """Run a layer (or a residual add, or a concatenation) at low precision.

    Args:
        weight_bits: 1 (sign times mean magnitude) to 8, 16 for bfloat16, 32 for full precision.
        act_bits: 2 to 8, 16 for bfloat16, 32 for full precision. bfloat16 is for weights and activations alike.
            Beside 1-bit weights also 1. With 1 or 2 bits beside them only the layer itself reads rounded values
            (see `RoundOperands`), and a join follows the tensors it reads.

    Raises:
        ConfigError: bits outside these ranges.

    Example:
        >>> Quantize().precision, Quantize(16, 16).precision, Quantize(weight_bits=4).precision
        ('int8', 'bf16', 'w4a8')
    """

    weight_bits: int = 8
    act_bits: int = 8

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    mechanism: ClassVar[Mechanism] = "hook"
    kinds: ClassVar[frozenset[str] | None] = LAYER_KINDS | {"add", "cat"}

    def __post_init__(self) -> None:
        allowed = {"weight_bits": (1, 2, 3, 4, 5, 6, 7, 8, 16, 32), "act_bits": (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)}
        for field, values in allowed.items():
            if getattr(self, field) not in values:
                raise ConfigError(f"{field} must be one of {', '.join(map(str, values))}")
        if (self.weight_bits == _BF16) != (self.act_bits == _BF16):
            raise ConfigError("weight_bits and act_bits must both be 16 (bfloat16) or neither")
        if self.act_bits == 1 and self.weight_bits != 1:
            raise ConfigError("act_bits 1 needs weight_bits 1: a layer of 1-bit activations runs on 1-bit weights only")
        if self.act_bits == _FP32 and self.weight_bits != _FP32:
            raise ConfigError("act_bits 32 needs weight_bits 32: weights alone do not make a layer run faster")

    @property
    def precision(self) -> str:
        """Name on the precision ladder: fp32, bf16, int8, or w<weight bits>a<activation bits>."""
        names = {(_FP32, _FP32): "fp32", (_BF16, _BF16): "bf16", (8, 8): "int8"}
        return names.get((self.weight_bits, self.act_bits), f"w{self.weight_bits}a{self.act_bits}")

    def runs(self, op: Op) -> bool:
        """Whether an operator can be exported at this precision; 1-bit kernels are for conv2d without groups only."""
        if self.precision in BIT_PRECISIONS:
            return op.kind == "conv2d" and op.attrs.get("groups", 1) == 1
        return self.kinds is None or op.kind in self.kinds

    @classmethod
    def of(cls, precision: str) -> "Quantize":
        """The technique behind a name on the precision ladder.

        Raises:
            ConfigError: no such precision.

        >>> Quantize.of("w4a8")
        Quantize(weight_bits=4, act_bits=8)
        """
        named = {"fp32": (_FP32, _FP32), "bf16": (_BF16, _BF16), "int8": (8, 8)}
        found = re.fullmatch(r"w(\d+)a(\d+)", precision)
        if precision not in named and found is None:
            raise ConfigError(f"unknown precision {precision!r}: use fp32, bf16, int8 or w<bits>a<bits>")
        return cls(*(named[precision] if found is None else (int(found[1]), int(found[2]))))

    @classmethod
    def rewrite(
        cls, model: nn.Module, chosen: Mapping[Site, "Quantize"], example_inputs: tuple[torch.Tensor, ...]
    ) -> nn.Module:
        """Install fake quantization at the chosen sites; activations observe until `calibrate`."""
        return cls.install(model, trace(model, *example_inputs), {s.key: t for s, t in chosen.items()})

    @classmethod
    def install(cls, model: nn.Module, workload: Workload, chosen: Mapping[Key, "Quantize"]) -> nn.Module:
        """Do the same in place with a workload at hand: that of any network of the same structure will do.

        Args:
            model: changed and returned.
            workload: gives the edges; widths do not matter.
            chosen: layers, adds and concatenations by (site name, call).

        Raises:
            UnsupportedLayerError: a chosen layer has no weight of its own.
        """
        kinds = {op.key: op.kind for op in workload if op.params or op.kind not in LAYER_KINDS}
        missing = [k for k in chosen if k not in kinds]
        if missing:
            raise UnsupportedLayerError(f"{missing[0][0]} has no weight of its own to quantize")
        layers = {k: t for k, t in chosen.items() if kinds[k] in LAYER_KINDS}
        joins = {k: t for k, t in chosen.items() if kinds[k] not in LAYER_KINDS}
        bits = {k[0]: t.act_bits for k, t in layers.items() if t.precision in BIT_PRECISIONS}
        followed = {k for k, t in joins.items() if t.precision in BIT_PRECISIONS}
        request = (
            {k: (t.weight_bits, t.act_bits) for k, t in layers.items() if t.weight_bits < _BF16 and k[0] not in bits},
            {k: t.act_bits if t.act_bits < _BF16 else None for k, t in joins.items() if k not in followed},
        )
        plan = plan_quantization(workload, *request)
        low = tuple(sorted({k[0] for k, t in layers.items() if t.weight_bits == _BF16}))
        host = install(model, _hooks(plan, low, bits))
        host.quant_plan, host.quant_bf16, host.quant_request = plan, low, request  # type: ignore[assignment]
        host.quant_bits = tuple(sorted(bits))  # type: ignore[assignment]
        return model


@dataclass(frozen=True)
class Quantization:
    """What `Quantize` did to a model, read off the model.

    Attributes:
        plan: layers, rounding points and shared scales.
        bf16: names of the layers that run in bfloat16.
        bits: what rounds the operands of each w1a1 and w1a2 layer, by layer name.
        weights: quantizer of each quantized layer's weight, by layer name.
        activations: quantizer of each scale of the plan.
        request: (weight bits, activation bits) of each layer and bits of each named join, as the policy asked.
    """

    plan: QuantPlan
    bf16: tuple[str, ...]
    bits: Mapping[str, RoundOperands]
    weights: Mapping[str, Any]
    activations: Mapping[Key, FakeQuantize]
    request: tuple[Mapping[Key, tuple[int, int]], Mapping[Key, int | None]]

    @classmethod
    def of(cls, model: nn.Module) -> "Quantization | None":
        """Read it off a model; None when nothing of it is quantized."""
        host = hooks_of(model)
        plan = getattr(host, "quant_plan", None)
        if host is None or not isinstance(plan, QuantPlan):
            return None
        hooks = {name: host.find(*key) for key in plan.layers for name in [key[0]]}
        weights = {n: next(h.quantizer for h in hs if isinstance(h, RoundWeight)) for n, hs in hooks.items()}
        points = {head: host.find(*key) for key, head in plan.points.items()}
        activations = {k: next(h.quantizer for h in hs if isinstance(h, RoundResult)) for k, hs in points.items()}
        bits = {n: next(h for h in host.find(n, 0) if isinstance(h, RoundOperands)) for n in host.quant_bits}  # type: ignore[union-attr]
        return cls(plan, host.quant_bf16, bits, weights, activations, host.quant_request)  # type: ignore[arg-type]

    def plan_for(self, workload: Workload) -> QuantPlan:
        """The same choice planned on another form of the network, such as one with BatchNorm folded.

        Scales keep their names, because a chain is named after the operation that BatchNorm and ReLU follow.
        """
        return plan_quantization(workload, *self.request)

    def widths(self) -> dict[str, tuple[int, int]]:
        """Weight and activation bits of each layer that is not fp32."""
        act = {k: self.plan.bits[head] for k, head in self.plan.inputs.items()}
        low = {k[0]: (w, act[k]) for k, w in self.plan.layers.items()}
        bits = {name: (1, hook.activation.format.bits) for name, hook in self.bits.items()}
        return low | bits | dict.fromkeys(self.bf16, (_BF16, _BF16))

    def asked(self) -> dict[str, str]:
        """Precision the policy asks of each layer that is not fp32."""
        return {name: Quantize(*widths).precision for name, widths in self.widths().items()}

    def observers(self) -> list[FakeQuantize]:
        """The quantizers whose range comes from data."""
        return [*self.activations.values(), *(hook.activation for hook in self.bits.values())]

    def freeze(self) -> None:
        """Fix the activation scales: statistics no longer follow the data."""
        for q in self.observers():
            q.freeze()


class RoundWeight(CallHook):
    """Rounds the weight argument of a convolution or linear call."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.quantizer: Any = Binary(axis=0) if bits == 1 else FakeQuantize.for_weight(bits, axis=0)

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if "weight" in kwargs:
            return args, {**kwargs, "weight": self.quantizer(kwargs["weight"])}
        return (args[0], self.quantizer(args[1]), *args[2:]), kwargs


class RoundResult(CallHook):
    """Rounds what an operation returns; hooks of one scale hold the same quantizer."""

    def __init__(self, quantizer: FakeQuantize) -> None:
        super().__init__()
        self.quantizer = quantizer

    def after(self, result: Any) -> Any:
        return first_tensor(result, self.quantizer)


class BFloat16(CallHook):
    """Rounds both operands to bfloat16; sum and bias stay fp32, as on hardware."""

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def low(x: Any) -> Any:
            return x.bfloat16().to(x.dtype) if isinstance(x, torch.Tensor) else x

        return (*map(low, args[:2]), *args[2:]), {k: low(v) if k == "weight" else v for k, v in kwargs.items()}


def _hooks(plan: QuantPlan, bf16: Iterable[str], bits: Mapping[str, int]) -> dict[Any, list[CallHook]]:
    scales = {head: FakeQuantize.for_activation(bits) for head, bits in plan.bits.items()}
    found: dict[Any, list[CallHook]] = {}
    for (name, _), weight_bits in plan.layers.items():
        found[name, None] = [RoundWeight(weight_bits)]  # a layer called several times has one weight
    for name in bf16:
        found[name, None] = [BFloat16()]
    for name, act_bits in bits.items():
        found[name, None] = [RoundOperands(act_bits)]
    for key, head in plan.points.items():
        found.setdefault(key, []).append(RoundResult(scales[head]))
    return found


def calibrate(model: nn.Module, batches: Iterable[torch.Tensor | tuple[torch.Tensor, ...]]) -> None:
    """Set the activation scales that hooks hold from real inputs; they round from then on.

    The BatchNorm statistics of a network with 1-bit layers are measured anew as well: with those of the unrounded
    network it computes nothing of use.

    Args:
        model: result of `apply` with `Quantize`, or another technique whose hooks hold quantizers.
        batches: inputs; a tuple holds several arguments of one call.

    Raises:
        ConfigError: the model has something to calibrate but there was no batch.
    """
    state, hooks = Quantization.of(model), hooks_of(model)
    found = hooks.modules() if hooks else ()
    # Quantizers of any technique, not of this one alone: the converters of analog arrays are calibrated here too.
    observers = [m for m in found if isinstance(m, FakeQuantize) and not m.recompute]
    given = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    if observers and not given:
        raise ConfigError("no calibration data: calibrate needs at least one batch of real inputs")
    renewed = bool(state and state.bits)
    for q in observers:
        q.observe()
    if renewed:  # first, so that the ranges behind a 1-bit layer are those it will have
        recalibrate(model, given)
    training = model.training
    model.eval()
    with torch.no_grad():
        for batch in given:
            model(*batch)
    model.train(training)
    for q in observers:
        q.quantize()
    if renewed:
        recalibrate(model, given)
