"""Weights as conductances of memory cells, programmed once and read later."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from netfit.errors import ConfigError, did_you_mean
from netfit.seeding import derive

from ._devices import Device, device

__all__ = ["Array", "Mapping", "Scaling", "Wiring"]

Mapping = Literal["differential", "offset"]
Scaling = Literal["tensor", "column"]


@dataclass(frozen=True)
class Wiring:
    """How a weight becomes conductances and comes back.

    "differential" gives a weight two cells, of which the one of the other sign stays at the smallest conductance;
    "offset" one cell, from which half the range is subtracted digitally.

    Args:
        device: name of the memory cell.
        mapping: see above.
        per: whether one weight of the tensor, or one of each column (output), takes the largest conductance.
        stuck_off: share of cells that stay at the smallest conductance.
        stuck_on: share of cells that stay at the largest one.

    Raises:
        ConfigError: a value outside its range.
    """

    device: str
    mapping: Mapping
    per: Scaling
    stuck_off: float
    stuck_on: float

    def __post_init__(self) -> None:
        device(self.device)
        for field, known in (("mapping", get_args(Mapping)), ("per", get_args(Scaling))):
            if getattr(self, field) not in known:
                raise ConfigError(f"{field}={getattr(self, field)!r}: {did_you_mean(str(getattr(self, field)), known)}")
        for field in ("stuck_off", "stuck_on"):
            if not 0 <= getattr(self, field) <= 1:
                raise ConfigError(f"{field}={getattr(self, field)} of a crossbar: a share of cells is 0 to 1")
        if self.stuck_off + self.stuck_on > 1:
            raise ConfigError(f"stuck_off={self.stuck_off} and stuck_on={self.stuck_on} are more than all cells")

    @property
    def cell(self) -> Device:
        """The memory cell."""
        return device(self.device)

    def largest(self, w: Tensor) -> Tensor:
        """Weight that takes the largest conductance, one number or one a column; 1 where all weights are 0."""
        size = w.abs()
        most = size.amax() if self.per == "tensor" else size.amax(tuple(range(1, w.ndim)), keepdim=True)
        return torch.where(most > 0, most, 1.0)

    def targets(self, w: Tensor) -> Tensor:
        """Conductances asked for, (cells a weight, *shape of the weight)."""
        low, span = self.cell.g_min, self.cell.g_max - self.cell.g_min
        share = w / self.largest(w)
        if self.mapping == "offset":
            return (low + span / 2 * (1 + share))[None]
        return torch.stack((share.clamp_min(0), (-share).clamp_min(0))).mul_(span).add_(low)

    def unit(self, w: Tensor) -> Tensor:
        """Weight per microsiemens of one cell."""
        cells = 2 if self.mapping == "offset" else 1
        return self.largest(w) * cells / (self.cell.g_max - self.cell.g_min)

    def weight(self, conductance: Tensor, w: Tensor) -> Tensor:
        """The weight that these conductances stand for."""
        if self.mapping == "offset":
            return (conductance[0] - (self.cell.g_min + self.cell.g_max) / 2) * self.unit(w)
        return (conductance[0] - conductance[1]) * self.unit(w)


class Array:
    """The cells of one weight: what happened when they were programmed.

    Args:
        wiring: how weights become conductances.
        w: the weight, first axis its outputs.
        seed: of this chip and layer.
    """

    def __init__(self, wiring: Wiring, w: Tensor, seed: int) -> None:
        self.wiring, self.w, self.seed = wiring, w.detach().clone(), seed
        targets = wiring.targets(self.w)
        self.cells = wiring.cell.program(targets, self._draw("program"))
        rates = (wiring.stuck_off, wiring.stuck_on)
        self.fate: Tensor | None = None
        if any(rates):
            self.fate = torch.rand(targets.shape, generator=self._draw("stuck")).to(w.device)

    def holds(self, w: Tensor) -> bool:
        """Whether it was programmed with exactly this weight."""
        return self.w.shape == w.shape and self.w.device == w.device and torch.equal(self.w, w)

    def read(self, t_s: float) -> Tensor:
        """The weight `t_s` seconds after programming; the same at every call.

        Raises:
            ConfigError: the time is negative, or nothing is known of the device at that time.
        """
        wiring = self.wiring
        if not 0 <= t_s < math.inf:
            raise ConfigError(f"t={t_s} s after programming: times are 0 or more")
        g = wiring.cell.read(wiring.targets(self.w), self.cells, float(t_s), self._draw("read", repr(float(t_s))))
        if self.fate is not None:
            g = g.masked_fill(self.fate < wiring.stuck_off, wiring.cell.g_min)
            g = g.masked_fill(self.fate >= 1 - wiring.stuck_on, wiring.cell.g_max)
        return wiring.weight(g, self.w)

    def _draw(self, *use: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive(self.seed, *use))
