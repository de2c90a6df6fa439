"""The accelerator: shape of its matrix core and sizes of its memories."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from netfit.errors import ConfigError, did_you_mean

__all__ = ["MEMORIES", "Config"]

MEMORIES = ("uop", "wgt", "inp", "acc", "out")  # their places are the memory numbers of the instruction set
# Base-2 logarithms of the bytes of uop, inp, wgt and acc, as the published configurations are named.
_CORES = {"1x16": (1, 16, 16, (15, 15, 18, 17)), "4x8": (4, 8, 8, (15, 16, 16, 18))}


@dataclass(frozen=True)
class Config:
    """A VTA: ``batch x block_in`` by ``block_in x block_out`` products of int8, summed in int32.

    Source: "A Hardware-Software Blueprint for Flexible Deep Learning Specialization" (2019).

    Args:
        batch: rows of the left operand.
        block_in: length of a sum, in channels.
        block_out: columns of the result, in channels.
        log_uop, log_inp, log_wgt, log_acc: base-2 logarithm of the bytes of each memory.
        clock_hz: cycles per second; 100 MHz on the board whose times are published.

    Raises:
        ConfigError: a size is not positive, or a memory is larger than an index of a micro-op reaches.

    >>> Config().depth("inp"), Config.from_text("4x8").depth("acc")
    (2048, 2048)
    """

    batch: int = 1
    block_in: int = 16
    block_out: int = 16
    log_uop: int = 15
    log_inp: int = 15
    log_wgt: int = 18
    log_acc: int = 17
    clock_hz: float = 100e6

    def __post_init__(self) -> None:
        for name in ("batch", "block_in", "block_out"):
            if not 1 <= getattr(self, name) <= 64:
                raise ConfigError(f"{name} = {getattr(self, name)} of a VTA: allowed are 1 to 64")
        for memory, most in (("uop", 8192), ("inp", 2048), ("wgt", 1024), ("acc", 2048)):
            if not 1 <= self.depth(memory) <= most:
                raise ConfigError(
                    f"the {memory} memory of a VTA has {self.depth(memory)} words: allowed are 1 to {most}"
                )
        if not self.clock_hz > 0:
            raise ConfigError(f"clock_hz = {self.clock_hz} of a VTA must be positive")

    @classmethod
    def from_text(cls, text: str) -> "Config":
        """``"1x16"`` or ``"4x8"``, the two published cores.

        Raises:
            ConfigError: another text.
        """
        name = text.strip() or "1x16"
        if name not in _CORES:
            raise ConfigError(f"no VTA core {text!r}; {did_you_mean(name, _CORES)}")
        batch, block_in, block_out, (uop, inp, wgt, acc) = _CORES[name]
        return cls(batch, block_in, block_out, uop, inp, wgt, acc)

    @property
    def name(self) -> str:
        """Short text of the core, such as ``"1x16"``."""
        return f"{self.batch}x{self.block_in}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one product."""
        return self.batch * self.block_in * self.block_out

    def word_bytes(self, memory: str) -> int:
        """Bytes of one word of a memory: the operand of one product."""
        return {
            "uop": 4,
            "wgt": self.block_in * self.block_out,
            "inp": self.batch * self.block_in,
            "acc": 4 * self.batch * self.block_out,
            "out": self.batch * self.block_out,
        }[memory]

    def depth(self, memory: str) -> int:
        """Words of a memory."""
        return (1 << int(getattr(self, f"log_{memory}"))) // self.word_bytes(memory)

    def numbers(self) -> list[float]:
        """The fields in their order, for files."""
        return [float(getattr(self, f.name)) for f in fields(self)]

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "Config":
        """Back from `numbers`.

        Raises:
            ConfigError: another count of them, or one that is out of range.
        """
        names = [f.name for f in fields(cls)]
        if len(numbers) != len(names):
            raise ConfigError(f"a VTA has {len(names)} parameters, not {len(numbers)}")
        batch, block_in, block_out, uop, inp, wgt, acc = (int(x) for x in numbers[:-1])
        return cls(batch, block_in, block_out, uop, inp, wgt, acc, numbers[-1])
