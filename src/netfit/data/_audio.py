"""Spoken words: recordings as they are, and as log-mel images of one size for networks."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError, ConfigError, did_you_mean, require

from ._dataset import Dataset
from ._files import Npz, Source, cached_array, find
from ._mel import log_mel

FSDD = Source(
    "fsdd.npz",
    15_427_051,
    "CC BY-SA 4.0",
    "https://github.com/Jakobovski/free-spoken-digit-dataset",
)
WAKE_WORDS = Source(
    "wake_words.npz",
    40_821_790,
    "Apache-2.0",
    "https://github.com/Picovoice/wake-word-benchmark",
)


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings of different lengths in one array.

    Args:
        name: of the data set.
        split: ``"train"`` or ``"test"``.
        samples: int16, all recordings one after another.
        offset: int64 (n + 1,); recording i is ``samples[offset[i]:offset[i + 1]]``.
        sample_rate: Hz.
        y: class numbers, int64 (n,).
        classes: name of each class.
        extra: further columns by name, such as ``speaker``.
        index: int64 (n,), number of each recording in the complete data set.
    """

    name: str
    split: str
    samples: NDArray[np.int16]
    offset: NDArray[np.int64]
    sample_rate: int
    y: NDArray[np.int64]
    classes: tuple[str, ...]
    extra: dict[str, NDArray[Any]]
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def clip(self, i: int) -> NDArray[np.int16]:
        """Samples of recording ``i``."""
        return self.samples[self.offset[i] : self.offset[i + 1]]

    def take(self, rows: NDArray[np.int64], split: str) -> "Recordings":
        """The recordings at these positions, as a split of their own."""
        lengths = np.diff(self.offset)[rows]
        return Recordings(
            name=self.name,
            split=split,
            samples=np.concatenate([self.clip(i) for i in rows]),
            offset=np.concatenate([[0], np.cumsum(lengths)]),
            sample_rate=self.sample_rate,
            y=self.y[rows],
            classes=self.classes,
            extra={name: column[rows] for name, column in self.extra.items()},
            index=self.index[rows],
        )


def recordings(name: str, split: str = "train", root: str | Path | None = None) -> Recordings:
    """The recordings behind ``load("fsdd")`` or ``load("wake-words")``.

    Args:
        name: ``"fsdd"`` or ``"wake-words"``.
        split: ``"train"`` or ``"test"``.
        root: folder to look in first.

    Raises:
        ConfigError: unknown name or split.
        DataNotFound: the file is nowhere.
        ArtifactError: the file is damaged.
        MissingExtraError: wake words are FLAC files, and soundfile is not installed.
    """
    if name not in READERS:
        raise ConfigError(f"{name!r} has no recordings; {did_you_mean(name, READERS)}")
    if split not in ("train", "test"):
        raise ConfigError(f"unknown split {split!r} of {name}; {did_you_mean(split, ('train', 'test'))}")
    everything = READERS[name](root)
    return everything.take(np.flatnonzero(_in_split(everything, split)), split)


def _in_split(whole: Recordings, split: str) -> NDArray[np.bool_]:
    """FSDD's official test split is takes 0 to 4 of every digit and speaker; of the wake words the last 400."""
    test = whole.extra["take"] < 5 if whole.name == "fsdd" else whole.index >= len(whole) - 400
    return test if split == "test" else ~test


def _fsdd(root: str | Path | None) -> Recordings:
    npz = Npz(find("fsdd", (FSDD,), root))
    return Recordings(
        name="fsdd",
        split="all",
        samples=npz["audio"],
        offset=npz["offset"],
        sample_rate=int(npz["sample_rate"]),
        y=npz["label"].astype(np.int64),
        classes=tuple(str(d) for d in range(10)),
        extra={"speaker": npz["speaker"], "take": npz["take"]},
        index=np.arange(len(npz["label"])),
    )


def _wake_words(root: str | Path | None) -> Recordings:
    path = find("wake-words", (WAKE_WORDS,), root)
    npz = Npz(path)
    y, length = npz["label"].astype(np.int64), int(npz["samples"])
    flat = cached_array(
        f"wake-words-{npz.fingerprint('flac')}", lambda: _decode_flac(path, npz["flac"], npz["offset"], length)
    )
    return Recordings(
        name="wake-words",
        split="all",
        samples=flat.reshape(-1),
        offset=np.arange(len(y) + 1) * length,
        sample_rate=int(npz["sample_rate"]),
        y=y,
        classes=tuple(str(w) for w in npz["words"]),
        extra={},
        index=np.arange(len(y)),
    )


READERS = {"fsdd": _fsdd, "wake-words": _wake_words}


def _decode_flac(path: Path, data: NDArray[np.uint8], offset: NDArray[np.int64], length: int) -> NDArray[np.int16]:
    """Decode consecutive FLAC files of ``length`` samples into (n, length)."""
    soundfile = require("soundfile", "speech")
    clips = np.empty((len(offset) - 1, length), np.int16)
    for i in range(len(clips)):
        try:
            clips[i], _ = soundfile.read(BytesIO(data[offset[i] : offset[i + 1]].tobytes()), dtype="int16")
        except (RuntimeError, ValueError) as e:  # soundfile's errors are RuntimeErrors
            raise ArtifactError(f"{path}: recording {i} is damaged ({e}); fetch the file again") from e
    return clips


def _log_mel_dataset(whole: Recordings, split: str, frames: int, licence: str, source: str) -> Dataset:
    """One log-mel image a recording; statistics are those of the training split."""
    x = np.stack([log_mel(whole.clip(i), whole.sample_rate, frames) for i in range(len(whole))])[:, None]
    train = x[_in_split(whole, "train")]
    rows = np.flatnonzero(_in_split(whole, split))
    return Dataset(
        name=whole.name,
        split=split,
        x=x[rows],
        y=whole.y[rows],
        classes=whole.classes,
        mean=(float(train.mean()),),
        std=(float(train.std()),),
        licence=licence,
        source=source,
        index=whole.index[rows],
        extra={name: column[rows] for name, column in whole.extra.items()},
    )


def fsdd(split: str, root: str | Path | None) -> Dataset:
    """Free Spoken Digit Dataset as log-mel images (1, 40, 64): the middle 0.65 s; test split take 0-4."""
    return _log_mel_dataset(_fsdd(root), split, 64, FSDD.licence, "Free Spoken Digit Dataset, log-mel")


def wake_words(split: str, root: str | Path | None) -> Dataset:
    """Six wake words as log-mel images (1, 40, 148), 1.5 s; speakers are shared between the splits."""
    source = "Picovoice wake-word benchmark, log-mel; the splits share speakers"
    return _log_mel_dataset(_wake_words(root), split, 148, WAKE_WORDS.licence, source)
