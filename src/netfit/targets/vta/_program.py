"""A program with its micro-ops, and its file."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError, ConfigError
from netfit.io import write_bytes

from ._config import Config
from .isa import DTYPE, decode, disassemble, encode

__all__ = ["Program"]

_MOST_BYTES = 256 << 20
_MOST_INSTRUCTIONS = 2_000_000


@dataclass(frozen=True, eq=False)
class Program:
    """Instructions of the accelerator, ready to run.

    Attributes:
        config: the accelerator it is for.
        instructions: structured array, one row per instruction (`encode` packs it into 128 bits each).
        uops: uint32 micro-ops in main memory.
        words: words of each operand in main memory: ``inp``, ``wgt`` and ``out``.
    """

    config: Config
    instructions: NDArray[Any]
    uops: NDArray[np.uint32]
    words: dict[str, int]

    def __post_init__(self) -> None:
        if self.instructions.dtype != DTYPE or self.instructions.ndim != 1:
            raise ConfigError(f"instructions of {self.instructions.dtype}: expected one row of numbers each")

    def __len__(self) -> int:
        return len(self.instructions)

    def listing(self) -> str:
        """The program as text, one instruction a line."""
        return "\n".join(disassemble(self.instructions))

    def save(self, path: str | Path) -> None:
        """Write the program as the hardware reads it, in a ``.npz`` file.

        Raises:
            ConfigError: a field does not fit its bits.
            ArtifactError: the file cannot be written.
        """
        buffer = io.BytesIO()
        words = np.array([self.words[name] for name in ("inp", "wgt", "out")], np.int64)
        np.savez_compressed(
            buffer, instructions=encode(self.instructions), uops=self.uops, words=words,
            config=np.array(self.config.numbers()),
        )  # fmt: skip
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "Program":
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing, too large, or no program.
        """
        path = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(item.file_size for item in archive.infolist()) > _MOST_BYTES:
                    raise ArtifactError(f"{path} unpacks to more than {_MOST_BYTES} bytes: no VTA program")
            with np.load(path, allow_pickle=False) as file:
                numbers, words = file["config"], [int(x) for x in file["words"]]
                instructions, uops = file["instructions"], file["uops"]
            config = Config.from_numbers([float(x) for x in numbers])
            if len(instructions) > _MOST_INSTRUCTIONS or uops.dtype != np.uint32 or uops.ndim != 1 or min(words) < 1:
                raise ConfigError(f"{len(instructions)} instructions, micro-ops of {uops.dtype}, words {words}")
            return cls(config, decode(instructions), uops, dict(zip(("inp", "wgt", "out"), words, strict=True)))
        except ArtifactError:
            raise
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as e:
            raise ArtifactError(f"{path} is no VTA program: {e}") from e
