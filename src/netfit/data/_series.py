"""Time series with labelled anomalies: servers, machines and a test bench, in numpy alone."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError, ConfigError, DataNotFound, did_you_mean

from ._files import Npz, Source, find, places

__all__ = ["Series", "read_series", "series"]

ASD = Source("asd.npz", 2_012_692, "MIT", "https://github.com/zhhlee/InterFusion")
SMD = Source("smd.npz", 27_704_871, "MIT", "https://github.com/NetManAIOps/OmniAnomaly")
SKAB = Source("skab.npz", 1_053_276, "GPL-3.0", "https://github.com/waico/SKAB")
_STEP_S = {"asd": 300.0, "smd": 60.0}
_SMD_FOLDER = "ServerMachineDataset"  # as its authors publish it: train, test, test_label, interpretation_label


@dataclass(frozen=True, eq=False)
class Series:
    """One series of several channels over time.

    Args:
        name: under which `series` knows it, such as ``"asd:omi-1"``.
        train: rows before, without labels, float32 (n, channels); no rows where the set has none.
        test: rows to judge, float32 (m, channels).
        label: 1 where `test` is abnormal, uint8 (m,).
        time: of the rows of `test`, seconds, float64 (m,).
        channels: their names.
        causes: (first row, behind the last, channels at fault) of segments of `test`, where somebody wrote them down.
        licence: of the data.
        source: where it comes from.
    """

    name: str
    train: NDArray[np.float32] = field(repr=False)
    test: NDArray[np.float32] = field(repr=False)
    label: NDArray[np.uint8] = field(repr=False)
    time: NDArray[np.float64] = field(repr=False)
    channels: tuple[str, ...] = field(repr=False)
    causes: tuple[tuple[int, int, tuple[int, ...]], ...] = field(repr=False)
    licence: str
    source: str = field(repr=False)


def series(name: str, root: str | Path | None = None) -> dict[str, Series]:
    """Load a set of series, or one of it.

    Args:
        name: ``"asd"`` (12 application servers), ``"smd"`` (server machines) or ``"skab"`` (a test bench), or one of
            their series, such as ``"smd:machine-1-6"``.
        root: folder to look in first. The text files of ``smd`` as its authors publish them are found there too.

    Returns:
        the series by name, without the name of the set.

    Raises:
        ConfigError: unknown name.
        DataNotFound: the file is nowhere.
        ArtifactError: the file is damaged.
    """
    kind, _, one = name.partition(":")
    loaders = {"asd": _npz_set, "skab": _skab, "smd": _smd}
    if kind not in loaders:
        raise ConfigError(f"unknown set of series {kind!r}; {did_you_mean(kind, loaders)}")
    return loaders[kind](kind, one or None, root)


def read_series(path: str | Path, label: str = "anomaly") -> Series:
    """Read a series of one's own: a CSV file with a header, numbers, and a column of labels.

    Args:
        path: UTF-8 text; a column ``time`` or ``timestamp`` of seconds is time.
        label: column of 0 and 1.

    Raises:
        DataNotFound: there is no such file.
        ConfigError: a column is missing or holds no numbers.
    """
    from ._csv import read_csv

    found = read_csv(path, label)
    words = [column for column, values in found.columns.items() if values is not None]
    if words or not set(found.data.classes) <= {"0", "1", "0.0", "1.0"}:
        raise ConfigError(f"{path}: column {words[0] if words else label!r} holds words where numbers are expected")
    channels = [c for c in found.columns if c.lower() not in ("time", "timestamp")]
    x, names = found.data.x, list(found.columns)
    at = [names.index(c) for c in channels]
    times = [x[:, names.index(c)] for c in names if c not in channels]
    clock: NDArray[np.float64] = np.array(times[0] if times else np.arange(len(x)), np.float64)
    y = np.array([float(c) for c in found.data.classes])[found.data.y]
    values = x[:, at].astype(np.float32)
    return Series(
        str(path), values[:0], values, y.astype(np.uint8), clock, tuple(channels), (), "the user's own", str(path)
    )


def _chosen(kind: str, known: list[str], one: str | None) -> list[str]:
    if one is not None and one not in known:
        raise ConfigError(f"{kind} has no series {one!r}; {did_you_mean(one, known)}")
    return known if one is None else [one]


def _npz_set(kind: str, one: str | None, root: str | Path | None) -> dict[str, Series]:
    source = {"asd": ASD, "smd": SMD}[kind]
    npz = Npz(find(kind, (source,), root))
    found = {}
    for name in _chosen(kind, [str(e) for e in npz["entities"]], one):
        causes = _causes(f"{kind}:{name}", str(npz[f"{name}/interpretation"]))
        arrays = (npz[f"{name}/train"], npz[f"{name}/test"], npz[f"{name}/test_label"])
        found[name] = _made(kind, name, *arrays, causes, source)
    return found


def _made(
    kind: str, name: str, train: NDArray[np.float32], test: NDArray[np.float32], label: NDArray[np.uint8],
    causes: tuple[tuple[int, int, tuple[int, ...]], ...], source: Source,
) -> Series:  # fmt: skip
    clock = np.arange(len(test), dtype=np.float64) * _STEP_S[kind]
    channels = tuple(f"m{i:02d}" for i in range(test.shape[1]))
    return Series(f"{kind}:{name}", train, test, label, clock, channels, causes, source.licence, source.where)


def _causes(name: str, text: str) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """Lines ``first-last:channel,channel``, channels counted from 1."""
    found = []
    for line in text.split():
        match = re.fullmatch(r"(\d+)-(\d+):(\d+(?:,\d+)*)", line)
        if not match:
            raise ArtifactError(f"{name}: {line[:60]!r} in its interpretation is not first-last:channel,channel")
        first, last = int(match[1]), int(match[2])
        found.append((first, last + 1, tuple(int(c) - 1 for c in match[3].split(","))))
    return tuple(found)


def _smd(kind: str, one: str | None, root: str | Path | None) -> dict[str, Series]:
    """The eight machines of the file, or all of the authors' folder where that is."""
    for place in places(root):
        folder = place / _SMD_FOLDER
        if (folder / "test").is_dir():
            known = sorted(path.stem for path in (folder / "test").glob("*.txt"))
            return {name: _smd_text(folder, name) for name in _chosen(kind, known, one)}
    return _npz_set(kind, one, root)


def _smd_text(folder: Path, name: str) -> Series:
    def table(part: str) -> NDArray[np.float32]:
        try:
            return np.loadtxt(folder / part / f"{name}.txt", np.float32, delimiter=",", ndmin=2)
        except OSError as e:
            raise DataNotFound(f"smd:{name}: {folder / part / name}.txt cannot be read") from e
        except ValueError as e:
            raise ArtifactError(f"{folder / part / name}.txt holds something that is no number: {e}") from e

    why = folder / "interpretation_label" / f"{name}.txt"
    causes = _causes(f"smd:{name}", why.read_text() if why.is_file() else "")
    label = table("test_label")[:, 0].astype(np.uint8)
    return _made("smd", name, table("train"), table("test"), label, causes, SMD)


def _skab(kind: str, one: str | None, root: str | Path | None) -> dict[str, Series]:
    npz = Npz(find(kind, (SKAB,), root))
    found = {}
    for name in _chosen(kind, [str(s) for s in npz["series"] if str(s) != "anomaly-free/anomaly-free"], one):
        values = npz[f"{name}/values"]
        empty = np.empty((0, values.shape[1]), np.float32)
        channels = tuple(str(f) for f in npz["features"])
        clock = npz[f"{name}/time"].astype(np.float64)
        label = npz[f"{name}/anomaly"]
        found[name] = Series(f"skab:{name}", empty, values, label, clock, channels, (), SKAB.licence, SKAB.where)
    return found
