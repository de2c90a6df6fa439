"""What a systolic array is built like, checked once."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from netfit.errors import ConfigError, did_you_mean

__all__ = ["Compat", "EnergyModel", "SystolicConfig", "check_choice", "check_number"]

Dataflow = Literal["ws", "os", "is"]
WeightLoad = Literal["overlapped", "serial"]
GroupMode = Literal["serial", "block_diagonal"]
Compat = Literal["camuy", "scalesim"]

# Allowed whole numbers; beyond them the counters of real layers would not fit into 64 bits.
RANGES = {
    "rows": (1, 16384),
    "cols": (1, 16384),
    "accum_rows": (2, 1 << 24),
    "fifo_depth": (1, 1 << 20),
    "weight_bits": (1, 64),
    "act_bits": (1, 64),
    "accum_bits": (1, 128),
}


@dataclass(frozen=True)
class EnergyModel:
    """Energy of moving one byte, in units of one register access.

    The defaults are the relative weights of "Eyeriss: A Spatial Architecture for Energy-Efficient Dataflow for
    Convolutional Neural Networks" (2016) as Camuy uses them; only ratios of energies mean anything until ``joules``
    and the weights are those of a real process. DRAM counts only where the array has a ``dram_bytes_per_s``.

    Args:
        buffer: operand loads from, and result stores to, the on-chip buffer.
        inter_pe: a hop from one processing element to the next.
        accumulator: a partial sum written to the accumulators below the array.
        register: a register read inside a processing element.
        dram: a byte from or to the memory outside.
        joules: what one unit stands for.

    Raises:
        ConfigError: a weight is negative or not finite.
    """

    buffer: float = 6.0
    inter_pe: float = 2.0
    accumulator: float = 2.0
    register: float = 1.0
    dram: float = 200.0
    joules: float = 1e-12

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"energy.{f.name} = {value!r}: allowed are finite numbers from 0")


@dataclass(frozen=True)
class SystolicConfig:
    """A systolic array of ``rows`` x ``cols`` processing elements that multiply and accumulate once a cycle.

    Args:
        rows: height H. Holds the length of the sums (weight- and input-stationary) or rows of the result.
        cols: width W. Holds columns of the result (for ``"is"``: rows of the result).
        accum_rows: rows of the accumulators under the array, half of them usable because they are double buffered.
        fifo_depth: entries of each input FIFO; counts in :attr:`register_bits` only.
        weight_bits: width of a weight; layers without a precision of their own use it.
        act_bits: width of an activation and of a stored result, likewise.
        accum_bits: width of a sum.
        dataflow: what stays in the array: ``"ws"`` weights, ``"os"`` outputs, ``"is"`` inputs.
        weight_load: ``"overlapped"``: a second register per element takes the next tile while the present one works.
            ``"serial"``: there is one register, so tiles are shifted in (``"os"``: results out) between passes.
        clock_hz: cycles a second.
        buffer_bytes: on-chip buffer; None holds every operand of a layer. Matters with ``dram_bytes_per_s`` only.
        dram_bytes_per_s: bandwidth of the memory outside; None never waits for it.
        group_mode: how the groups of a convolution run: one after another, or as many at a time as fit along the
            diagonal of the array.
        energy: what moves cost.

    Raises:
        ConfigError: a value outside its range; the message names both.

    >>> SystolicConfig(128, 128).register_bits
    17702912
    """

    rows: int
    cols: int
    accum_rows: int = 4096
    fifo_depth: int = 8
    weight_bits: int = 8
    act_bits: int = 8
    accum_bits: int = 32
    dataflow: Dataflow = "ws"
    weight_load: WeightLoad = "overlapped"
    clock_hz: float = 1e9
    buffer_bytes: int | None = None
    dram_bytes_per_s: float | None = None
    group_mode: GroupMode = "serial"
    energy: EnergyModel = field(default_factory=EnergyModel)

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            _check_whole(name, getattr(self, name), low, high)
        check_choice("dataflow", self.dataflow, get_args(Dataflow))
        check_choice("weight_load", self.weight_load, get_args(WeightLoad))
        check_choice("group_mode", self.group_mode, get_args(GroupMode))
        check_number("clock_hz", self.clock_hz)
        if self.dram_bytes_per_s is not None:
            check_number("dram_bytes_per_s", self.dram_bytes_per_s)
        if self.buffer_bytes is not None:
            _check_whole("buffer_bytes", self.buffer_bytes, 1, 1 << 50)
        if not isinstance(self.energy, EnergyModel):
            raise ConfigError(f"energy = {self.energy!r}: allowed is an EnergyModel")

    @property
    def register_bits(self) -> int:
        """Storage bits of elements, FIFOs and accumulators: a stand-in for area."""
        elements = self.rows * self.cols * (2 * self.weight_bits + self.act_bits + self.accum_bits)
        fifos = self.rows * self.fifo_depth * self.act_bits
        return elements + fifos + self.cols * self.accum_rows * self.accum_bits

    @classmethod
    def from_text(cls, text: str) -> "SystolicConfig":
        """Read ``"16x16"`` or ``"128x128,dataflow=os,act_bits=4,dram_bytes_per_s=1e9"``.

        Raises:
            ConfigError: no such size or setting.
        """
        size, *settings = text.split(",")
        parts = size.strip().split("x")
        if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts):
            raise ConfigError(
                f"systolic array {text!r}: give rows x columns first, such as 16x16 or 128x128,dataflow=os"
            )
        config = cls(int(parts[0]), int(parts[1]))
        return replace(config, **dict(_setting(s) for s in settings))


def _setting(text: str) -> tuple[str, Any]:
    """One ``name=value``, of the type its default has."""
    known = [f.name for f in fields(SystolicConfig) if f.name not in ("rows", "cols", "energy")]
    name, found, value = (part.strip() for part in text.partition("="))
    if not found or name not in known:
        raise ConfigError(f"systolic array: no setting {text.strip()!r}; {did_you_mean(name, known)}")
    if name in RANGES or name == "buffer_bytes":
        number = _number(value)
        return name, int(number) if number == number // 1 and abs(number) < 2**63 else value
    return name, _number(value) if name.endswith(("_s", "_hz")) else value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} = {value!r} of a systolic array: allowed are whole numbers from {low} to {high}")


def check_number(name: str, value: Any) -> None:
    """A positive finite number, or a :class:`ConfigError` that names it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{name} = {value!r} of a systolic array: allowed are finite numbers above 0")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """One of a few words, or a :class:`ConfigError` that names them."""
    if value not in allowed:
        raise ConfigError(f"{name} = {value!r} of a systolic array: allowed are {', '.join(map(repr, allowed))}")
