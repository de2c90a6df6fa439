"""A table of the user's own, from a CSV file with a header."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, DataNotFound, did_you_mean

from ._dataset import Dataset
from ._tables import with_statistics

__all__ = ["Table", "read_csv"]

MISSING = ("", "?", "NA", "NaN", "nan")


@dataclass(frozen=True)
class Table:
    """A table read from a file.

    Args:
        data: all rows; words are numbered, a missing value is NaN.
        columns: name of each feature -> its words in the order of their numbers, or None for a column of numbers.
    """

    data: Dataset
    columns: dict[str, list[str] | None]


def read_csv(path: str | Path, target: str) -> Table:
    """Read a CSV file with a header line.

    Args:
        path: UTF-8 text, fields separated by commas.
        target: name of the column that holds the classes.

    Raises:
        DataNotFound: there is no such file.
        ConfigError: it is empty, a line has another number of fields, `target` is no column, or a class is missing.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except OSError as e:
        raise DataNotFound(f"{path} cannot be read: {e.strerror}") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"{path} is no CSV text: {e}") from e
    if len(lines) < 2:
        raise ConfigError(f"{path} holds no rows below its header")
    names, *rows = lines
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise ConfigError(f"{path} line {number} has {len(row)} fields, the header has {len(names)}")
    if target not in names:
        raise ConfigError(f"{path} has no column {target!r}: {did_you_mean(target, names)}")
    cells = dict(zip(names, zip(*rows, strict=True), strict=True))
    labels = cells.pop(target)
    if any(label in MISSING for label in labels):
        raise ConfigError(f"{path} line {2 + [c in MISSING for c in labels].index(True)}: {target} is missing")
    classes, y = np.unique(labels, return_inverse=True)
    columns = {name: _column(values) for name, values in cells.items()}
    if not columns:
        raise ConfigError(f"{path} has no column besides {target!r}")
    x = np.stack([numbers for numbers, _ in columns.values()], axis=1)
    found = Dataset(
        name=str(path), split="train", x=x, y=y.astype(np.int64), classes=tuple(map(str, classes)),
        mean=(0.0,), std=(1.0,), licence="the user's own", source=str(path), index=np.arange(len(y)),
    )  # fmt: skip
    return Table(with_statistics(found, x.astype(np.float32)), {name: words for name, (_, words) in columns.items()})


def _column(cells: tuple[str, ...]) -> tuple[NDArray[np.float64], list[str] | None]:
    """Numbers as they are, words numbered in sorted order."""
    try:
        return np.array([np.nan if cell in MISSING else float(cell) for cell in cells]), None
    except ValueError:
        words = sorted({cell for cell in cells if cell not in MISSING})
        number = {word: float(i) for i, word in enumerate(words)}
        return np.array([number.get(cell, np.nan) for cell in cells]), words
