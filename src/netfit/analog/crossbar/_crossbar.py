"""`Crossbar`: a layer whose weight is held by memory cells."""

import math
from collections.abc import Mapping as Map
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.seeding import derive
from netfit.surgery import CallHook, Site, Stage, Technique, install

from .._converter import Converter
from .._matrix import KINDS, as_one_call, bound, product
from ._cells import Array, Mapping, Scaling, Wiring

__all__ = ["Crossbar", "CrossbarHook"]


@dataclass(frozen=True)
class Crossbar(Technique):
    """Hold the weight of a layer in a crossbar of memory cells, and compute the layer there.

    The weight itself stays as it is: what the cells make of it is worked out from it and `seed`, so that evaluation
    always sees the same chip. In training every pass programs a new chip, drawn from torch's generator, and the
    gradient goes straight through to the weight. The order is DAC, cells with read noise, ADC of each tile, digital
    sum, drift compensation, bias. Converters are calibrated by `netfit.surgery.calibrate`; until then they let numbers
    through. Models of "Implications of noise in resistive memory on deep neural networks for image classification"
    (Emonds et al., 2024) are of this kind; the cells are the measured ones of `netfit.analog.crossbar.device`.

    Args:
        device: memory cell, see `device_names`.
        mapping: "differential", two cells a weight, or "offset", one cell and a digital offset.
        per: largest conductance for the largest weight of the "tensor", or of each "column" (output).
        dac_bits: of inputs, sign included; None for no rounding.
        adc_bits: of the result of each tile, sign included; None for no rounding and no tiles.
        adc_range: largest result the converter tells apart; None for calibration.
        rows: operands of one tile.
        stuck_off: share of cells stuck at the smallest conductance.
        stuck_on: share of cells stuck at the largest one.
        read_std: noise of each cell at each read, as a share of the largest conductance.
        t_s: seconds between programming and use.
        seed: of the chip; every layer draws its own numbers from it.

    Raises:
        ConfigError: a value outside its range.

    Example:
        >>> from netfit.surgery import Policy, apply
        >>> net, x = nn.Sequential(nn.Linear(20, 3)), torch.rand(8, 20)
        >>> chip = apply(net, Policy({"*": Crossbar("wan2022")}), x).eval()
        >>> bool(0 < (chip(x) - net(x)).abs().mean() < 0.3)
        True
    """

    device: str = "nandakumar2019"
    mapping: Mapping = "differential"
    per: Scaling = "tensor"
    dac_bits: int | None = None
    adc_bits: int | None = None
    adc_range: float | None = None
    rows: int = 256
    stuck_off: float = 0.0
    stuck_on: float = 0.0
    read_std: float = 0.0
    t_s: float = 0.0
    seed: int = 0

    name: ClassVar[str] = "crossbar"
    stage: ClassVar[Stage] = Stage.NOISE
    mechanism: ClassVar[Any] = "hook"
    kinds: ClassVar[frozenset[str] | None] = KINDS

    def __post_init__(self) -> None:
        wiring = self.wiring
        for field in ("dac_bits", "adc_bits"):
            bits = getattr(self, field)
            if bits is not None and not 2 <= bits <= 16:
                raise ConfigError(f"{field}={bits} of a crossbar: choose 2 to 16, sign included, or none")
        if self.adc_range is not None and (self.adc_bits is None or not 0 < self.adc_range < math.inf):
            raise ConfigError(f"adc_range={self.adc_range} of a crossbar: give a positive range, beside adc_bits")
        if self.rows < 1:
            raise ConfigError(f"rows={self.rows} of a crossbar: a tile has at least one")
        if not 0 <= self.read_std < math.inf:
            raise ConfigError(f"read_std={self.read_std} of a crossbar: a spread is 0 or more")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed} of a crossbar: choose 0 to 2**63 - 1")
        Array(wiring, torch.zeros(1, 1), 0).read(self.t_s)  # refuses a time that the device does not know

    @property
    def wiring(self) -> Wiring:
        """How weights become conductances."""
        return Wiring(self.device, self.mapping, self.per, self.stuck_off, self.stuck_on)

    @classmethod
    def rewrite(cls, model: nn.Module, chosen: Map[Site, "Crossbar"], example_inputs: tuple[Tensor, ...]) -> nn.Module:
        """Put the chosen layers on crossbars."""
        install(model, {(s.name, None): CrossbarHook(t, s.name, s.kind) for s, t in chosen.items()})
        return model


class CrossbarHook(CallHook):
    """One layer on its crossbar.

    Args:
        crossbar: what it is made of.
        site: name of the layer.
        kind: what it computes.
    """

    def __init__(self, crossbar: Crossbar, site: str, kind: str) -> None:
        super().__init__()
        self.crossbar, self.site, self.kind = crossbar, site, kind
        self.seed = derive(crossbar.seed, "crossbar", site)
        self.input = None if crossbar.dac_bits is None else Converter(crossbar.dac_bits, None, site)
        self.output = None
        if crossbar.adc_bits is not None:
            most = 2 ** (crossbar.adc_bits - 1) - 1
            self.output = Converter(crossbar.adc_bits, crossbar.adc_range and crossbar.adc_range / most)
        # Conditions of use, not state of the model: they stay out of the state_dict.
        self.t_s, self.gain, self.measuring = crossbar.t_s, 1.0, False
        self._array: Array | None = None
        self._read: tuple[float, Tensor] | None = None

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The layer's result as the crossbar computes it."""

        def compute(*args: Any, **kwargs: Any) -> Tensor:
            call = bound(args, kwargs)
            bias = call.pop("bias")
            call["input"] = call["input"] if self.input is None else self.input(call["input"])
            if self.measuring:
                self.gain = self._lost(func, call)
            y = self.gain * self._result(func, call, self._weight(call["weight"], self.t_s))
            return y if bias is None else y + self._columns(bias)

        return as_one_call(self.kind, compute, args, kwargs)

    def array(self, w: Tensor) -> Array:
        """The cells as they were programmed with this weight."""
        if self._array is None or not self._array.holds(w):
            self._array, self._read = Array(self.crossbar.wiring, w, self.seed), None
        return self._array

    @property
    def noisy(self) -> bool:
        """Whether cells are read with noise now: while converters are calibrated they are not."""
        calibrating = any(c is not None and c.observing for c in (self.input, self.output))
        return self.crossbar.read_std > 0 and not calibrating

    def _weight(self, w: Tensor, t_s: float) -> Tensor:
        """What the cells make of a weight, with the gradient of the weight itself."""
        source = w.detach()
        if self.training:
            now = Array(self.crossbar.wiring, source, int(torch.randint(2**62, ()))).read(t_s)
        else:
            array = self.array(source)
            if self._read is None or self._read[0] != t_s:
                self._read = t_s, array.read(t_s)
            now = self._read[1]
        return now + (w - source) if w.requires_grad else now

    def _result(self, func: Any, call: dict[str, Any], w: Tensor) -> Tensor:
        """The layer without bias: in one piece, or as converted tiles."""
        if self.output is None:
            y: Tensor = func(**{**call, "weight": w})
            if not self.noisy:
                return y
            # The sum of one normal number a cell is one normal number: its variance is the same product of squares.
            squares = func(**{**call, "input": call["input"].square(), "weight": torch.ones_like(w)})
            std = self._columns(self._cell_std(call["weight"]))
            return y + std * squares.clamp_min(0).sqrt() * torch.randn_like(y)
        p = product(self.kind, (), {**call, "weight": w, "bias": None})
        rows = self.crossbar.rows
        tiles = [self._tile(*tile, call["weight"]) for tile in zip(p.x.split(rows, 2), p.w.split(rows, 1), strict=True)]
        return p.fold(self.output(torch.stack(tiles)).sum(0))

    def _tile(self, x: Tensor, w: Tensor, source: Tensor) -> Tensor:
        y = x @ w
        if not self.noisy:
            return y
        std = self._cell_std(source).expand(len(source)).reshape(len(w), 1, -1)
        return y + std * x.norm(dim=2, keepdim=True) * torch.randn_like(y)

    def _cell_std(self, w: Tensor) -> Tensor:
        """Read noise of one weight, in weights: (outputs,) or (1,)."""
        wiring, cells = self.crossbar.wiring, 2 if self.crossbar.mapping == "differential" else 1
        return self.crossbar.read_std * wiring.cell.g_max * math.sqrt(cells) * wiring.unit(w.detach()).flatten()

    def _columns(self, values: Tensor) -> Tensor:
        """One number an output, in the shape that broadcasts with the result."""
        return values if self.kind == "linear" else values[:, None, None]

    def _lost(self, func: Any, call: dict[str, Any]) -> float:
        """How much larger results were when the cells had just been programmed."""
        array = self.array(call["weight"].detach())
        then, now = (func(**{**call, "weight": array.read(t)}).abs().sum() for t in (0.0, self.t_s))
        return float(then / now) if now > 0 else 1.0
