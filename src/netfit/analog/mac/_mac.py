"""`SaturatingMAC`: a layer on an analog array whose sums saturate while they are taken."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.kernels import ordered_matmul
from netfit.quant import Affine, fake_quantize
from netfit.seeding import derive
from netfit.surgery import CallHook, Site, Stage, Technique, install

from .._converter import Converter
from .._matrix import KINDS, as_one_call, product

__all__ = ["MACHook", "SaturatingMAC", "brainscales2"]

SENDS_GAIN = 0.002  # of one send, from the driver of BrainScaleS-2


@dataclass(frozen=True)
class SaturatingMAC(Technique):
    """Compute a layer on tiles of an analog array: DAC, saturating sum, noise, ADC, digital sum of the tiles.

    A sum is ``v = clamp(leak * v + gain * x[k] * w[k], lo, hi)`` in the order of the rows, in units of the converter
    behind it. Inputs are unsigned codes; negative ones run in a second pass that is subtracted. `gain`, `input_scale`
    and `weight_scale` are found by `netfit.surgery.calibrate` (the weight's from the weight) unless they are given:
    all three make the constant-scale quantization of a real chip. Bias stays digital. Numbers of `brainscales2` are
    the defaults.

    "On the Non-Associativity of Analog Computations" (Kuhn et al., 2023); the circuit's detail is netfit's own model.

    Args:
        rows: operands of one tile.
        cols: columns of the array; they come back with the same gain every `cols` outputs.
        lo: smallest sum.
        hi: largest sum.
        gain: units of the sum for the product of two codes.
        overdrive: times the calibrated gain; above 1 more sums saturate, below 1 fewer.
        noise_std: of the sum before it is converted, in its units, drawn anew at each call from torch's generator.
        input_bits: unsigned.
        weight_bits: signed.
        adc_bits: codes between `lo` and `hi`.
        ordered: saturate at every step; else only at the end, as common models of such arrays do.
        leak: share of the sum left after a step, 0 < leak <= 1.
        column_gain_std: spread of the columns' gains around 1, fixed by `seed`.
        input_scale: number an input code stands for.
        weight_scale: number a weight code stands for.
        seed: of the columns' gains.

    Raises:
        ConfigError: a value outside its range.

    Example:
        >>> from netfit.surgery import Policy, apply, calibrate
        >>> net, x = nn.Sequential(nn.Linear(200, 3)), torch.rand(64, 200)
        >>> analog = apply(net, Policy({"kind:linear": SaturatingMAC(noise_std=0.0)}), x)
        >>> calibrate(analog, [x])
        >>> float((analog(x) - net(x)).detach().abs().mean()) < 0.1
        True
    """

    rows: int = 128
    cols: int = 256
    lo: float = -128.0
    hi: float = 127.0
    gain: float | None = None
    overdrive: float = 1.0
    noise_std: float = 2.0
    input_bits: int = 5
    weight_bits: int = 7
    adc_bits: int = 8
    ordered: bool = True
    leak: float = 1.0
    column_gain_std: float = 0.0
    input_scale: float | None = None
    weight_scale: float | None = None
    seed: int = 0

    name: ClassVar[str] = "saturating_mac"
    stage: ClassVar[Stage] = Stage.NOISE
    mechanism: ClassVar[Any] = "hook"
    kinds: ClassVar[frozenset[str] | None] = KINDS

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and self.lo <= 0 <= self.hi and self.lo < self.hi):
            raise ConfigError(
                f"lo={self.lo} and hi={self.hi} of a saturating sum: give finite lo <= 0 <= hi that differ"
            )
        ranges = {"rows": (1, 2**20), "cols": (1, 2**20), "input_bits": (1, 12), "weight_bits": (2, 12)}
        ranges |= {"adc_bits": (1, 16), "seed": (0, 2**63 - 1)}
        for field, (least, most) in ranges.items():
            if not least <= getattr(self, field) <= most:
                raise ConfigError(f"{field}={getattr(self, field)} of a saturating_mac: choose {least} to {most}")
        for field in ("gain", "input_scale", "weight_scale"):
            value = getattr(self, field)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{field}={value} of a saturating_mac: give a positive number, or none to calibrate")
        if not 0 < self.overdrive < math.inf or (self.gain is not None and self.overdrive != 1):
            raise ConfigError(f"overdrive={self.overdrive} of a saturating_mac: positive, and 1 beside a given gain")
        for field in ("noise_std", "column_gain_std"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ConfigError(f"{field}={getattr(self, field)} of a saturating_mac: a spread is 0 or more")
        if not 0 < self.leak <= 1:
            raise ConfigError(f"leak={self.leak} of a saturating_mac: choose 0 < leak <= 1 (1 forgets nothing)")

    @classmethod
    def rewrite(
        cls, model: nn.Module, chosen: Mapping[Site, "SaturatingMAC"], example_inputs: tuple[Tensor, ...]
    ) -> nn.Module:
        """Put the chosen layers on the array; they stay digital until `calibrate` where something is calibrated."""
        install(model, {(s.name, None): MACHook(t, s.name, s.kind) for s, t in chosen.items()})
        return model


def brainscales2(num_sends: int = 1, **changes: Any) -> SaturatingMAC:
    """The array of BrainScaleS-2: 128 signed rows, 256 columns, 5-bit inputs, 7-bit weights, 8-bit results.

    Args:
        num_sends: times each input is sent, which multiplies the gain of 0.002.
        **changes: other fields of `SaturatingMAC`.

    Raises:
        ConfigError: `num_sends` is below 1, or a field has no such value.
    """
    if num_sends < 1:
        raise ConfigError(f"num_sends={num_sends}: an input is sent at least once")
    return SaturatingMAC(**({"gain": SENDS_GAIN * num_sends} | changes))


class MACHook(CallHook):
    """One layer on the array.

    Args:
        mac: the array.
        site: name of the layer.
        kind: what it computes.
    """

    order: Tensor
    column_gain: Tensor

    def __init__(self, mac: SaturatingMAC, site: str, kind: str) -> None:
        super().__init__()
        self.mac, self.site, self.kind = mac, site, kind
        self.input = Converter(mac.input_bits + 1, mac.input_scale, site)
        # Only the range of the results counts: it sets the gain.
        self.result = None if mac.gain is not None else Converter(mac.adc_bits, None)
        # (groups, k) rows in the order they are added up; empty for the order in which they stand.
        self.register_buffer("order", torch.empty(0, dtype=torch.int64))
        draw = torch.Generator().manual_seed(derive(mac.seed, "column gain"))
        spread = torch.randn(mac.cols, generator=draw) * mac.column_gain_std
        self.register_buffer("column_gain", 1 + spread, persistent=False)
        self.sizes = (0, 0)  # groups and k, once the layer has run
        self.listener: Callable[[Tensor, Tensor], None] | None = None

    @property
    def digital(self) -> bool:
        """Whether the layer still waits for `calibrate`."""
        waiting = (c for c in (self.input, self.result) if c is not None and c.constant is None)
        return any(c.observing for c in waiting)

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The layer's result as the array computes it."""
        return as_one_call(self.kind, self._run, args, kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Tensor:
        p = product(self.kind, args, kwargs)
        self.sizes = (len(p.x), p.x.shape[2])
        x = self.input(p.x)
        if self.listener is not None:
            self.listener(x.detach(), p.w.detach())
        if self.digital:
            y = p.x @ p.w
            return p.fold(y if self.result is None else self.result(y))
        w, unit = self._weight(p.w)
        groups = range(len(x))
        return p.fold(unit * torch.stack([self._group(x[g], w[g] / unit, g) for g in groups]))

    def _weight(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The weight the array holds, and the number that one unit of a sum stands for."""
        mac, form = self.mac, Affine(self.mac.weight_bits)
        if mac.weight_scale is None:
            scale = form.qparams(w.detach().amin(), w.detach().amax())[0]
        else:
            scale = torch.tensor(mac.weight_scale, device=w.device)
        w = fake_quantize(w, scale, torch.zeros_like(scale, dtype=torch.int32), form.qmin, form.qmax)
        if mac.gain is not None:
            return w, self.input.step.to(w.device) * scale / mac.gain
        assert self.result is not None
        largest = min(mac.hi or -mac.lo, -mac.lo or mac.hi) * mac.overdrive
        return w, self.result.reach.to(w.device) / largest

    def _group(self, x: Tensor, w: Tensor, group: int) -> Tensor:
        w = w * self.column_gain[torch.arange(w.shape[1], device=w.device) % self.mac.cols]
        if self.order.numel():
            x, w = x[:, self.order[group]], w[self.order[group]]
        if not self.input.negative:
            return self._array(x, w)
        return self._array(x.clamp_min(0), w) - self._array((-x).clamp_min(0), w)

    def _array(self, x: Tensor, w: Tensor) -> Tensor:
        mac = self.mac
        tiles = [self._tile(*tile) for tile in zip(x.split(mac.rows, 1), w.split(mac.rows, 0), strict=True)]
        return tiles[0] if len(tiles) == 1 else torch.stack(tiles).sum(0).clamp(mac.lo, mac.hi)

    def _tile(self, x: Tensor, w: Tensor) -> Tensor:
        mac = self.mac
        v = ordered_matmul(x, w, mac.lo, mac.hi, mac.leak) if mac.ordered else x @ w
        if mac.noise_std and not self.input.observing:  # the ranges of later layers follow from nothing drawn
            v = v + mac.noise_std * torch.randn_like(v)
        scale = torch.tensor((mac.hi - mac.lo) / (2**mac.adc_bits - 1), device=v.device)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return fake_quantize(v, scale, zero, math.ceil(mac.lo / scale), math.floor(mac.hi / scale))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        order = state_dict.get(prefix + "order")
        if order is not None and order.shape != self.order.shape:
            self.order = torch.empty_like(order, device=self.order.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
