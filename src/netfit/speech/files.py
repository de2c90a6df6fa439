"""Sound files in and out, and what may be wrong with sound."""

import base64
from collections.abc import Iterator
from io import BytesIO
from math import gcd
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from netfit.errors import ArtifactError, ConfigError, require
from netfit.io import write_bytes

__all__ = [
    "ENDINGS",
    "MAX_MICS",
    "Writer",
    "as_signal",
    "blocks",
    "data_uri",
    "encode",
    "properties",
    "read",
    "resample",
    "write",
]

ENDINGS = (".wav", ".flac", ".ogg", ".g722")
MAX_MICS = 16


def read(path: str | Path, fs: int | None = None) -> tuple[Tensor, int]:
    """Samples of a sound file.

    Args:
        path: wav, flac, ogg, or raw G.722.
        fs: resample to this rate; as stored when None.

    Returns:
        float32 (channels, n) in [-1, 1], and samples a second.

    Raises:
        ConfigError: there is no such file.
        ArtifactError: it cannot be decoded.
        MissingExtraError: soundfile (for G.722: av) is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no sound file {path}")
    samples, rate = _g722(path) if path.suffix == ".g722" else _soundfile(path)
    x = torch.from_numpy(samples)
    return (x, rate) if fs is None or fs == rate else (resample(x, rate, fs), fs)


def _soundfile(path: Path) -> tuple[Any, int]:
    soundfile = require("soundfile", "speech")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (RuntimeError, ValueError) as e:  # its errors are RuntimeErrors
        raise ArtifactError(f"{path} is no readable sound file: {e}") from e
    return np.ascontiguousarray(samples.T), int(rate)


def _g722(path: Path) -> tuple[Any, int]:
    av = require("av", "speech")
    try:
        with av.open(str(path), format="g722") as container:
            parts = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    except Exception as e:  # FFmpeg's errors have a tree of their own
        raise ArtifactError(f"{path} is no readable G.722 file: {e}") from e
    samples = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    return samples.astype(np.float32)[None] / 32768, 16000


def resample(x: Tensor, old: int, new: int) -> Tensor:
    """Another sampling rate by a polyphase filter.

    Args:
        x: (..., n).
        old: samples a second it has.
        new: samples a second wanted.
    """
    from scipy.signal import resample_poly

    divisor = gcd(old, new)
    return torch.from_numpy(resample_poly(x.numpy(), new // divisor, old // divisor, axis=-1)).to(x.dtype)


def encode(x: Tensor, fs: int, kind: str = "WAV") -> bytes:
    """A sound file of 16 bits in memory.

    Args:
        x: (n,) or (channels, n); values beyond [-1, 1] are clipped.
        fs: samples a second.
        kind: ``"WAV"`` or ``"FLAC"``.
    """
    soundfile = require("soundfile", "speech")
    buffer = BytesIO()
    soundfile.write(buffer, x.clamp(-1, 1).numpy().T, fs, format=kind, subtype="PCM_16")
    return buffer.getvalue()


def write(path: str | Path, x: Tensor, fs: int) -> None:
    """Write a sound file of 16 bits; an existing one is replaced in one step.

    Raises:
        ConfigError: the name ends neither in .wav nor in .flac.
        ArtifactError: it cannot be written.
    """
    path = _writable(path)
    write_bytes(path, encode(x, fs, path.suffix[1:].upper()))


def data_uri(x: Tensor, fs: int) -> str:
    """The same inside a page."""
    return "data:audio/wav;base64," + base64.b64encode(encode(x, fs)).decode()


def blocks(path: str | Path, samples: int) -> Iterator[Tensor]:
    """A long file piece by piece.

    Args:
        path: wav, flac or ogg.
        samples: of a piece.

    Yields:
        float32 (channels, up to `samples`).
    """
    soundfile = require("soundfile", "speech")
    try:
        with soundfile.SoundFile(path) as file:
            for part in file.blocks(samples, dtype="float32", always_2d=True):
                yield torch.from_numpy(np.ascontiguousarray(part.T))
    except RuntimeError as e:
        raise ArtifactError(f"{path} is no readable sound file: {e}") from e


class Writer:
    """A sound file of 16 bits written piece by piece; it takes its name when all of it is there.

    Args:
        path: ends in .wav or .flac.
        fs: samples a second.

    Raises:
        ConfigError: another ending.
        ArtifactError: it cannot be written.
    """

    def __init__(self, path: str | Path, fs: int) -> None:
        self.path = _writable(path)
        self._part = self.path.with_name(f".{self.path.name}.part")
        soundfile = require("soundfile", "speech")
        kind = self.path.suffix[1:].upper()
        try:
            self._file = soundfile.SoundFile(self._part, "w", fs, 1, "PCM_16", format=kind)
        except RuntimeError as e:
            raise ArtifactError(f"cannot write {self.path}: {e}") from e

    def __enter__(self) -> Self:
        return self

    def write(self, x: Any) -> None:
        """Append samples (n,)."""
        self._file.write(np.clip(x, -1, 1))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


def properties(path: str | Path) -> tuple[int, int, int]:
    """Channels, samples, and samples a second of a sound file.

    Raises:
        ConfigError: there is no such file.
        ArtifactError: it cannot be read.
    """
    soundfile = require("soundfile", "speech")
    if not Path(path).is_file():
        raise ConfigError(f"no sound file {path}")
    try:
        found = soundfile.info(path)
    except RuntimeError as e:
        raise ArtifactError(f"{path} is no readable sound file: {e}") from e
    return found.channels, found.frames, found.samplerate


def _writable(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in (".wav", ".flac"):
        raise ConfigError(f"{path} must end in .wav or .flac")
    return path


def as_signal(x: Any, name: str = "audio") -> Tensor:
    """Check a recording and bring it into the form (M, n), float32.

    Raises:
        ConfigError: empty, silent, not finite, more than 16 channels, or not (M, n) at all.
    """
    signal = torch.as_tensor(x)
    if not signal.is_floating_point():
        signal = signal.float() / 32768
    signal = signal.float()
    if signal.ndim == 1:
        signal = signal[None]
    if signal.ndim != 2:
        raise ConfigError(f"{name} has shape {tuple(signal.shape)}: give (microphones, samples)")
    M, n = signal.shape
    if n == 0 or M == 0:
        raise ConfigError(f"{name} is empty: shape {M} x {n}")
    if M > MAX_MICS:
        turned = "; transpose it if it is (samples, microphones)" if n <= MAX_MICS else ""
        raise ConfigError(f"{name} has {M} channels, more than {MAX_MICS}: interleaved by mistake?{turned}")
    if bad := int((~signal.isfinite()).sum()):
        where = (~signal.isfinite()).nonzero()[0].tolist()
        raise ConfigError(
            f"{name} holds {bad} values that are NaN or infinite, the first in channel {where[0]} at {where[1]}"
        )
    if not signal.any():
        raise ConfigError(f"{name} is silent: all {n} samples of {M} channels are zero")
    return signal
