"""Memory devices: how a conductance that was asked for comes out, now and later. Conductances in microsiemens (uS).

Sources: "Phase-change memory models for deep learning training and inference" (Nandakumar et al., 2019); "A
compute-in-memory chip based on resistive random-access memory" (Wan et al., 2022); "Accurate program/verify schemes of
resistive switching memory (RRAM) for in-memory neural network circuits" (Milo et al., 2021). The fits are those of the
public toolkits aihwkit and CrossSim.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from netfit.errors import ConfigError, did_you_mean

__all__ = ["PCM", "Device", "GenericDevice", "MiloReRAM", "WanReRAM", "device", "device_names"]

DAY_S = 86400.0


@dataclass(frozen=True)
class Device(ABC):
    """One kind of memory cell.

    Attributes:
        g_min: smallest conductance it is programmed to.
        g_max: largest one, which stands for the largest weight.
    """

    g_min: float
    g_max: float

    @abstractmethod
    def program(self, target: Tensor, draw: torch.Generator) -> tuple[Tensor, ...]:
        """Program cells: what is fixed for each cell from now on, the conductance at time 0 first.

        Args:
            target: asked conductances, `g_min` to `g_max`.
            draw: generator of the random numbers.
        """

    def read(self, target: Tensor, cells: tuple[Tensor, ...], t_s: float, draw: torch.Generator) -> Tensor:
        """Conductances `t_s` seconds after programming.

        Raises:
            ConfigError: nothing is known about that time.
        """
        return cells[0]


def _normal(like: Tensor, draw: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=draw, dtype=like.dtype).to(like.device)


def _polynomial(r: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = torch.full_like(r, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value.mul_(r).add_(c)
    return value


@dataclass(frozen=True)
class GenericDevice(Device):
    """A Gaussian error of the conductance that stays as it was programmed.

    Args:
        g_min: smallest conductance.
        g_max: largest one.
        std: of the error; a share of `g_max` where `law` is "independent", of the conductance where it is
            "proportional", and where it is "inverse" a share of `g_max` that grows as g_max / g (at most tenfold).
        law: how the error depends on the conductance.

    Raises:
        ConfigError: a value outside its range.
    """

    g_min: float = 0.0
    g_max: float = 100.0
    std: float = 0.0
    law: str = "independent"

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise ConfigError(f"law={self.law!r} of a generic device: {did_you_mean(self.law, LAWS)}")
        if not 0 <= self.std < math.inf:
            raise ConfigError(f"std={self.std} of a generic device: a spread is 0 or more")
        if not 0 <= self.g_min < self.g_max < math.inf:
            raise ConfigError(f"g_min={self.g_min} and g_max={self.g_max} of a device: give 0 <= g_min < g_max")

    def program(self, target: Tensor, draw: torch.Generator) -> tuple[Tensor, ...]:
        """Target and error, never below 0."""
        if self.std == 0:
            return (target,)
        scale = {"independent": torch.tensor(self.g_max), "proportional": target}.get(self.law)
        if scale is None:
            scale = self.g_max * (target / self.g_max).clamp_min(0.1).reciprocal()
        return ((target + self.std * scale * _normal(target, draw)).clamp_min(0),)


@dataclass(frozen=True)
class PCM(Device):
    """Phase-change memory: programming noise, drift with a spread of exponents, 1/f read noise.

    Any time after programming is known. "Phase-change memory models for deep learning training and inference"
    (Nandakumar et al., 2019), as fitted by aihwkit.
    """

    g_min: float = 0.0
    g_max: float = 25.0

    t0_s: ClassVar[float] = 20.0  # first reading after programming; times count from there
    t_read_s: ClassVar[float] = 250e-9

    def program(self, target: Tensor, draw: torch.Generator) -> tuple[Tensor, ...]:
        """Conductance at time 0 and drift exponent of each cell."""
        r = target / self.g_max
        programmed = _polynomial(r, (0.26348, 1.9650, -1.1731)).mul_(_normal(target, draw)).add_(target).clamp_min_(0)
        log_r = r.clamp_min_(1e-7).log_()
        spread = (-0.0125 * log_r).sub_(0.0059).clamp_(0.008, 0.045).mul_(_normal(target, draw))
        exponent = log_r.mul_(-0.0155).add_(0.0244).clamp_(0.049, 0.1).add_(spread).abs_()
        return programmed, exponent

    def read(self, target: Tensor, cells: tuple[Tensor, ...], t_s: float, draw: torch.Generator) -> Tensor:
        """g (t / t0)^-nu with the 1/f noise that has gathered since programming."""
        programmed, exponent = cells
        t = t_s + self.t0_s
        drifted = torch.exp(exponent * -math.log(t / self.t0_s)).mul_(programmed)
        noise = (programmed / self.g_max).pow_(0.65).clamp_min_(1e-3).reciprocal_().mul_(0.0088).clamp_max_(0.2)
        noise.mul_(math.sqrt(math.log((t + self.t_read_s) / (2 * self.t_read_s)))).mul_(_normal(target, draw))
        return drifted.addcmul_(drifted, noise).clamp_min_(0)


@dataclass(frozen=True)
class WanReRAM(Device):
    """Resistive memory of the NeuRRAM chip: the spread around the target 1 s, 1 day and 2 days after programming.

    Only these three times were measured; time 0 means 1 s. The cells are drawn anew around their target at each of
    them, as in aihwkit. "A compute-in-memory chip based on resistive random-access memory" (Wan et al., 2022).
    """

    g_min: float = 0.0
    g_max: float = 40.0

    spread: ClassVar[dict[float, tuple[float, ...]]] = {
        1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
        DAY_S: (0.701, 22.086, -50.773, 47.095, -16.458),
        2 * DAY_S: (0.782, 20.274, -43.507, 37.062, -11.934),
    }

    def program(self, target: Tensor, draw: torch.Generator) -> tuple[Tensor, ...]:
        """Conductance after 1 s."""
        return (self._spread(target, 1.0, draw),)

    def read(self, target: Tensor, cells: tuple[Tensor, ...], t_s: float, draw: torch.Generator) -> Tensor:
        """As programmed at 0 and 1 s, spread anew around the target later."""
        if t_s in (0, 1):
            return cells[0]
        if t_s not in self.spread:
            raise ConfigError(f"t={t_s:g} s of the wan2022 device: measured are 1, 86400 and 172800 s")
        return self._spread(target, t_s, draw)

    def _spread(self, target: Tensor, t_s: float, draw: torch.Generator) -> Tensor:
        std = _polynomial(target / self.g_max, self.spread[t_s])
        return std.mul_(_normal(target, draw)).add_(target).clamp_min_(0)


@dataclass(frozen=True)
class MiloReRAM(Device):
    """Resistive memory with a narrow programmed spread, valid from 50 to 225 uS.

    "Accurate program/verify schemes of resistive switching memory (RRAM) for in-memory neural network circuits"
    (Milo et al., 2021), as fitted by CrossSim.
    """

    g_min: float = 50.0
    g_max: float = 225.0

    def program(self, target: Tensor, draw: torch.Generator) -> tuple[Tensor, ...]:
        """Target and an error that shrinks with the conductance."""
        std = (4.782321 - 0.009107 * target).clamp_min(0)
        return ((target + std * _normal(target, draw)).clamp_min(0),)


LAWS = ("independent", "proportional", "inverse")
_NAMED: dict[str, Device] = {
    "ideal": GenericDevice(),
    "milo2021": MiloReRAM(),
    "nandakumar2019": PCM(),
    "wan2022": WanReRAM(),
}


def device_names() -> list[str]:
    """Devices by name; ``<law>:<std>``, such as ``proportional:0.05``, is a generic one."""
    return [*_NAMED, *(f"{law}:STD" for law in LAWS)]


def device(name: str) -> Device:
    """The device behind a name.

    Args:
        name: one of `device_names`.

    Raises:
        ConfigError: no device has that name.

    Example:
        >>> device("wan2022").g_max, device("proportional:0.05").std
        (40.0, 0.05)
    """
    law, colon, std = name.partition(":")
    if colon and law in LAWS:
        try:
            return GenericDevice(std=float(std), law=law)
        except ValueError as e:
            raise ConfigError(f"device {name!r}: after the colon stands the spread, such as {law}:0.05") from e
    if name not in _NAMED:
        raise ConfigError(f"no device is called {name!r}: {did_you_mean(name, device_names())}")
    return _NAMED[name]
