"""Converters between numbers and voltages: uniform steps over a range that is given or found by calibration."""

from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.quant import Affine, FakeQuantize, fake_quantize

__all__ = ["Converter"]


class Converter(nn.Module):
    """A digital-to-analog or analog-to-digital converter, symmetric about zero.

    Until `netfit.surgery.calibrate` has shown it data it lets numbers through, unless its step is given. Its range
    stays as calibrated, in training too: converters are set once.

    Args:
        bits: of a code, sign included.
        step: numbers a code stands apart; None for calibration, which leaves out 0.01 % at either end.
        name: of the layer, for messages; without one, numbers beyond a given range are cut off in silence.
    """

    def __init__(self, bits: int, step: float | None, name: str = "") -> None:
        super().__init__()
        self.seen = FakeQuantize(Affine(bits), "percentile" if step is None else "minmax")
        if step is not None:
            self.seen.quantize()  # `calibrate` observes nevertheless, to compare what comes with the range
        self.constant, self.name = step, name
        self.negative = True  # whether numbers below zero are to be expected; a plain value, as torch.export needs

    @property
    def observing(self) -> bool:
        """Whether data still sets the range."""
        return self.seen.mode == "observe"

    @property
    def step(self) -> Tensor:
        """Numbers a code stands apart, fp32 scalar."""
        return self.seen.qparams()[0] if self.constant is None else torch.tensor(self.constant)

    @property
    def reach(self) -> Tensor:
        """Largest number it tells apart."""
        return self.step * self.seen.format.qmax

    def forward(self, x: Tensor) -> Tensor:
        """What the other side of the converter reads; straight-through gradient inside the range."""
        if self.observing:
            self.seen(x)
            self.negative = bool(self.seen.lo < 0)
            if self.constant is None:
                return x
            if self.name:
                self._require_inside(self.constant)
        step = self.step.to(x.device)
        form = self.seen.format
        return fake_quantize(x, step, torch.zeros_like(step, dtype=torch.int32), form.qmin, form.qmax)

    def _require_inside(self, step: float) -> None:
        reach = (self.seen.format.qmax + 1) * step  # a code more, for hardware that cuts codes off
        lo, hi = float(self.seen.lo), float(self.seen.hi)
        if max(-lo, hi) > reach:
            raise ConfigError(
                f"{self.name}: numbers from {lo:.4g} to {hi:.4g} do not fit a converter that reaches {reach:.4g}: "
                "take a larger step or smaller numbers"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        lo = state_dict.get(prefix + "seen.lo", torch.empty(0))
        self.negative = lo.numel() == 0 or bool(lo < 0)
