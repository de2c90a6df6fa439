"""Where voices and noises come from: folders of recordings, data sets by name, and noises made from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, did_you_mean

from ._noise import SYNTHETIC
from ._texts import read_texts
from .files import ENDINGS, read

__all__ = ["Clips", "Noises", "split_names"]

Array = NDArray[np.float64]
_DATA_SETS = ("wake-words",)
_PAUSE_S = (0.1, 0.5)


def split_names(text: str | Path | Sequence[str | Path]) -> list[str]:
    """Several names of one text, separated by commas."""
    parts = str(text).split(",") if isinstance(text, str | Path) else [str(t) for t in text]
    return [part.strip() for part in parts if part.strip()]


@dataclass
class Clips:
    """Recordings of voices, grouped by speaker; decoded when asked for.

    Args:
        names: folders, searched to the bottom, or ``"wake-words"``. A folder that holds recordings itself is one
            speaker, in any other one every folder directly under it is.
        fs: samples a second.
        shortest: seconds; shorter recordings are passed over.

    Raises:
        ConfigError: no such folder, or nothing in it.
    """

    names: Sequence[str]
    fs: int = 16000
    shortest: float = 0.8
    speakers: dict[str, list[Path | int]] = field(init=False, default_factory=dict)
    _texts: dict[Path, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            if name in _DATA_SETS:
                self._add_data_set(name)
            else:
                self._add_folder(Path(name))
        if not self.speakers:
            raise ConfigError(f"no recordings in {', '.join(self.names) or 'nothing'}: looked for {', '.join(ENDINGS)}")

    def _add_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(
                f"no folder {folder} of recordings, and no data set of that name; known: {', '.join(_DATA_SETS)}"
            )
        files = [p for p in sorted(folder.rglob("*")) if p.suffix in ENDINGS and p.parent.name != "silence"]
        mixed = not any(path.parent == folder for path in files)
        for path in files:
            speaker = folder / path.relative_to(folder).parts[0] if mixed else folder
            self.speakers.setdefault(str(speaker), []).append(path)
        self._texts |= read_texts(folder)

    def _add_data_set(self, name: str) -> None:
        from netfit.data import recordings

        self._recorded = recordings(name, "train")
        self.speakers[name] = list(range(len(self._recorded)))  # dozens of voices, not labelled

    def clip(self, key: Path | int) -> Array:
        """One recording, without the silence around it, mean power one."""
        if isinstance(key, int):
            x = self._recorded.clip(key) / 32768.0
        else:
            x = read(key, self.fs)[0].mean(0).double().numpy()
        loud = np.abs(x) > 0.02 * max(float(np.abs(x).max(initial=0)), 1e-9)
        if not loud.any():
            return np.zeros(0)
        first, last = int(loud.argmax()), len(x) - int(loud[::-1].argmax())
        x = x[first:last] - x[first:last].mean()
        return x / max(float(np.sqrt(np.mean(x**2))), 1e-9)

    def text(self, key: Path | int) -> str | None:
        """What is said in a recording, where a text file tells."""
        return self._texts.get(key) if isinstance(key, Path) else None

    @property
    def texts(self) -> list[str]:
        """Everything that is said, where text files tell."""
        return sorted(set(self._texts.values()))

    def talk(self, n: int, rng: np.random.Generator) -> Array:
        """One speaker who goes on talking with short pauses, (n,)."""
        speaker = self.speakers[sorted(self.speakers)[rng.integers(len(self.speakers))]]
        parts, total = [np.zeros(int(rng.uniform(0, 0.5) * self.fs))], 0
        for _ in range(200):
            x = self.clip(speaker[rng.integers(len(speaker))])
            if len(x) >= self.shortest * self.fs:
                parts += [x, np.zeros(int(rng.uniform(*_PAUSE_S) * self.fs))]
            if (total := sum(map(len, parts))) >= n:
                break
        return np.concatenate([*parts, np.zeros(max(0, n - total))])[:n]

    def sentence(self, rng: np.random.Generator, longest: float) -> tuple[Array, str]:
        """One recording whose words are known, half a second of silence around it.

        Raises:
            ConfigError: no text belongs to any recording.
        """
        known = sorted(self._texts, key=str)
        if not known:
            raise ConfigError(f"no texts beside the recordings of {', '.join(self.names)}: see texts.tsv in the docs")
        edge = np.zeros(self.fs // 2)
        for _ in range(200):
            key = known[rng.integers(len(known))]
            x = self.clip(key)
            if self.shortest * self.fs <= len(x) <= longest * self.fs:
                return np.concatenate([edge, x, edge]), self._texts[key]
        raise ConfigError(f"no recording with a text is shorter than {longest} s")


class Noises:
    """Noises by name: synthetic ones, ``"babble"`` of voices, and folders of recordings.

    Args:
        names: of `SYNTHETIC`, ``"babble"``, or folders.
        voices: what babble is made of.
        fs: samples a second.

    Raises:
        ConfigError: an unknown name.
    """

    def __init__(self, names: Sequence[str], voices: Clips, fs: int = 16000) -> None:
        self.names, self._voices, self.fs = list(names), voices, fs
        self._recorded: dict[str, list[Path]] = {}
        for name in self.names:
            if Path(name).is_dir():
                self._recorded[name] = [p for p in sorted(Path(name).rglob("*")) if p.suffix in ENDINGS]
                if not self._recorded[name]:
                    raise ConfigError(f"no recordings in {name}: looked for {', '.join(ENDINGS)}")
            elif name not in SYNTHETIC and name != "babble":
                raise ConfigError(f"noise {name!r} is no folder; {did_you_mean(name, [*SYNTHETIC, 'babble'])}")
        if not self.names:
            raise ConfigError(f"no noise named: folders, babble, {', '.join(SYNTHETIC)}")

    def draw(self, points: int, n: int, rng: np.random.Generator) -> tuple[str, list[Array]]:
        """One kind of noise, and what each of several points in the room emits of it."""
        name = self.names[rng.integers(len(self.names))]
        return name, [self._one(name, n, rng) for _ in range(points)]

    def _one(self, name: str, n: int, rng: np.random.Generator) -> Array:
        if name in SYNTHETIC:
            return SYNTHETIC[name](n, self.fs, rng)
        if name == "babble":
            voices = [np.roll(self._voices.talk(n, rng), rng.integers(n)) for _ in range(3)]
            return np.sum(voices, axis=0)
        files = self._recorded[name]
        x = read(files[rng.integers(len(files))], self.fs)[0].mean(0).double().numpy()
        x = np.tile(x, -(-n // max(len(x), 1)) + 1)
        begin = rng.integers(len(x) - n)
        part = x[begin : begin + n]
        return part / max(float(np.sqrt(np.mean(part**2))), 1e-9)
