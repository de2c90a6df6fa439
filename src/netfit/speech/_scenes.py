"""Simulated recordings: a voice and noises in a room, heard by an array."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netfit.errors import ArtifactError, ConfigError, did_you_mean
from netfit.io import read_json, write_bytes, write_json
from netfit.seeding import derive

from ._room import impulse_responses
from ._sources import Clips, Noises, split_names
from .files import encode, read

__all__ = ["ARRAYS", "Scene", "SceneFolder", "Scenes"]

Array = NDArray[np.float64]

ARRAYS: Mapping[str, Array] = {
    "tablet6": np.array([[x, y, 0.0] for y in (0.095, -0.095) for x in (-0.1, 0.0, 0.1)]),
    "linear4": np.array([[x, 0.0, 0.0] for x in (-0.06, -0.02, 0.02, 0.06)]),
    "circle8": np.array([[0.05 * np.cos(a), 0.05 * np.sin(a), 0.0] for a in np.arange(8) * np.pi / 4]),
}
_POINTS = 6  # that emit noise
_SELF_NOISE_DB = -50  # of every microphone, below the voice


@dataclass(frozen=True, eq=False)
class Scene:
    """One recording whose parts are known.

    Attributes:
        mix: what the microphones hear, float32 (M, n).
        speech: the part of the voice in it, reverberant, (M, n).
        fs: samples a second.
        facts: how it was made; ``"text"`` holds the words where they are known.
    """

    mix: Tensor
    speech: Tensor
    fs: int
    facts: dict[str, Any]

    @property
    def noise(self) -> Tensor:
        """Everything but the voice."""
        return self.mix - self.speech


@dataclass(frozen=True)
class Scenes:
    """A sequence of simulated recordings; number i depends on the seed and i only.

    Args:
        speech: folders of recordings (wav, flac, ogg, g722) or ``"wake-words"``, separated by commas.
        noise: folders, ``"babble"`` (of the same voices), or synthetic noises by name, separated by commas.
        n: how many.
        array: a name of `ARRAYS`, or positions in m, (M, 3).
        rt60: range of the reverberation time, s.
        snr: range of the ratio of voice to noise at microphone 0, dB.
        seconds: length of a scene.
        texts: one recording with known words a scene, instead of somebody who goes on talking.
        fs: samples a second.
        seed: of every random draw.

    Raises:
        ConfigError: a range, a name or a folder that cannot be used.
    """

    speech: str | Path | Sequence[str | Path]
    noise: str | Path | Sequence[str | Path] = ("babble", "pink", "hum", "clatter")
    n: int = 100
    array: str | Array = "tablet6"
    rt60: tuple[float, float] = (0.2, 0.4)
    snr: tuple[float, float] = (-5.0, 10.0)
    seconds: float = 4.0
    texts: bool = False
    fs: int = 16000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rt60", "snr"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ConfigError(f"{name}=({low}, {high}): give the lower end first")
        if self.n < 1 or self.seconds < 1:
            raise ConfigError(f"{self.n} scenes of {self.seconds} s: allowed are one or more of at least 1 s")
        self.positions  # noqa: B018  an unknown array, folder or noise is told now, not at the first scene
        self._noises  # noqa: B018

    @functools.cached_property
    def positions(self) -> Array:
        """Microphones in m, (M, 3), before the array is put into a room."""
        return _positions(self.array)

    @functools.cached_property
    def _clips(self) -> Clips:
        return Clips(split_names(self.speech), self.fs)

    @functools.cached_property
    def _noises(self) -> Noises:
        return Noises(split_names(self.noise), self._clips, self.fs)

    @property
    def sentences(self) -> list[str]:
        """Everything that may be said: the language of a recogniser; empty unless scenes have texts."""
        return self._clips.texts if self.texts else []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Scene:
        if not 0 <= i < self.n:
            raise IndexError(i)
        rng = np.random.default_rng(derive(self.seed, "scene", i))
        voice, text = self._voice(rng)
        kind, emitted = self._noises.draw(_POINTS, len(voice), rng)
        size, rt60 = rng.uniform([4, 4, 2.5], [7, 7, 3.2]), rng.uniform(*self.rt60)
        mics, places = _place(size, self.positions, rng)
        heard = [
            _convolve(x, impulse_responses(size, rt60, place, mics, self.fs))
            for x, place in zip([voice, *emitted], places, strict=True)
        ]
        snr = rng.uniform(*self.snr)
        speech, noise = heard[0], np.sum(heard[1:], axis=0)
        power = _power(speech[0])
        noise *= np.sqrt(power / max(_power(noise[0]), 1e-20) / 10 ** (snr / 10))
        noise += np.sqrt(power * 10 ** (_SELF_NOISE_DB / 10)) * rng.standard_normal(noise.shape)
        level = 10 ** (rng.uniform(-15, -1) / 20) / np.abs(speech + noise).max()
        facts = {"noise": kind, "snr_db": snr, "rt60_s": rt60, "room_m": size.tolist(), "text": text}
        return Scene(_tensor((speech + noise) * level), _tensor(speech * level), self.fs, facts)

    def _voice(self, rng: np.random.Generator) -> tuple[Array, str | None]:
        if self.texts:
            return self._clips.sentence(rng, self.seconds - 1)
        return self._clips.talk(int(self.seconds * self.fs), rng), None


def _tensor(x: Array) -> Tensor:
    return torch.from_numpy(x).float()


def _positions(array: str | Array) -> Array:
    if isinstance(array, str):
        if array not in ARRAYS:
            raise ConfigError(f"unknown array {array!r}: {did_you_mean(array, ARRAYS)}")
        return ARRAYS[array]
    places = np.asarray(array, float)
    if places.ndim != 2 or places.shape[1] != 3:
        raise ConfigError(f"array positions of shape {places.shape}: give (microphones, 3) in m")
    return places


def _place(size: Array, positions: Array, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """Microphones somewhere in the room, turned any way; the voice near them, the noises further off."""
    centre = np.array([*rng.uniform(1.2, size[:2] - 1.2), rng.uniform(0.9, 1.4)])
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    voice = _around(centre, size, (0.5, 1.5), rng)
    return centre + positions @ turn.T, [voice, *(_around(centre, size, (1.8, 3.0), rng) for _ in range(_POINTS))]


def _around(centre: Array, size: Array, distance: tuple[float, float], rng: np.random.Generator) -> Array:
    for _ in range(1000):
        angle = rng.uniform(0, 2 * np.pi)
        step = rng.uniform(*distance) * np.array([np.cos(angle), np.sin(angle), 0]) + [0, 0, rng.uniform(-0.2, 0.6)]
        place = centre + step
        if (place > 0.2).all() and (place < size - 0.2).all():
            return place
    raise ConfigError(f"no place for a source at {distance} m in a room of {size.round(1).tolist()} m")


def _convolve(x: Array, responses: Array) -> Array:
    size = 1 << (len(x) + responses.shape[1]).bit_length()
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(responses, size), size)[:, : len(x)]


def _power(x: Array) -> float:
    return float(np.mean(x**2))


class SceneFolder(Sequence[Scene]):
    """Scenes on disk: ``scenes.json`` and two FLAC files each.

    Args:
        path: folder written by `SceneFolder.save`.

    Raises:
        ArtifactError: it holds no scenes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        table = self.path / "scenes.json"
        if not table.is_file():
            raise ArtifactError(f"{self.path} holds no scenes.json: make it with netfit speech simulate")
        content = read_json(table)
        if not isinstance(content, dict) or content.get("kind") != "scenes" or not content.get("scenes"):
            raise ArtifactError(f"{table} lists no scenes; make it again with netfit speech simulate")
        self.facts: list[dict[str, Any]] = content["scenes"]
        self.settings: dict[str, Any] = content.get("settings", {})

    @staticmethod
    def name(i: int, part: str) -> str:
        """File of a scene's mix or speech."""
        return f"{i:04d}-{part}.flac"

    @classmethod
    def keep(cls, path: Path, i: int, scene: Scene) -> dict[str, Any]:
        """Write the sound of one scene; returns what scenes.json shall say of it."""
        path.mkdir(parents=True, exist_ok=True)
        for part, x in (("mix", scene.mix), ("speech", scene.speech)):
            write_bytes(path / cls.name(i, part), encode(x, scene.fs, "FLAC"))
        return scene.facts

    @staticmethod
    def finish(path: Path, facts: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
        """Write scenes.json: from then on the folder can be read."""
        write_json(path / "scenes.json", {"kind": "scenes", "settings": dict(settings), "scenes": list(facts)})

    def __len__(self) -> int:
        return len(self.facts)

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        (mix, fs), (speech, _) = (read(self.path / self.name(i, part)) for part in ("mix", "speech"))
        return Scene(mix, speech, fs, self.facts[i])
