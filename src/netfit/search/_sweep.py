"""Millions of points evaluated in blocks, kept as columns.

A sweep is no study: an analytic cost takes microseconds a point, an Optuna trial takes milliseconds to store. Each
block is one transaction, so a killed sweep loses the block it was at. Columns are stored as one blob of
little-endian float64 per block: reading and writing them costs a fraction of what rows of numbers cost
(``benchmarks/search_store.py``).
"""

import hashlib
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ArtifactError, ConfigError, did_you_mean
from ._pareto import pareto_mask
from ._storage import connect

__all__ = ["Sweep"]

Block = Mapping[str, ArrayLike]
Columns = dict[str, NDArray[np.float64]]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS names (position INTEGER PRIMARY KEY, name TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS blocks (block INTEGER PRIMARY KEY, inputs TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS data (position INTEGER, block INTEGER, numbers BLOB, PRIMARY KEY (position, block))",
)


class Sweep:
    """A table of points on disk, filled block by block.

    Args:
        path: an SQLite file, made when absent.
        columns: names of the inputs and results to keep; numbers only.

    Raises:
        ConfigError: no or repeated names, or the file keeps other columns.
        ArtifactError: the file is damaged or cannot be written.

    >>> import tempfile
    >>> sweep = Sweep(Path(tempfile.mkdtemp()) / "sweep.db", ["rows", "cols", "cycles"])
    >>> sweep.run({"rows": [8, 16], "cols": [8, 16, 32]}, lambda b: {"cycles": 4096 / (b["rows"] * b["cols"])})
    6
    >>> sweep.columns()["cycles"].tolist()
    [64.0, 32.0, 16.0, 32.0, 16.0, 8.0]
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str]) -> None:
        self.path, self._names = Path(path), tuple(columns)
        if not self._names or len(set(self._names)) < len(self._names):
            raise ConfigError(f"a sweep needs columns with different names, not {self._names}")
        self._connection = self._call(self._open)
        kept = tuple(n for (n,) in self._read("SELECT name FROM names ORDER BY position"))
        if kept != self._names:
            raise ConfigError(f"{self.path} keeps the columns {kept}, not {self._names}; use another file")

    def run(
        self,
        points: Mapping[str, ArrayLike] | Iterable[Block],
        fn: Callable[[Columns], Mapping[str, ArrayLike]],
        chunk: int = 65536,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> int:
        """Evaluate the blocks that the file does not hold yet.

        Args:
            points: a grid (name to its values; all combinations, the last name fastest), or blocks of columns of
                equal length, in the same order at every call.
            fn: gives the result columns of a block of float64 columns, vectorised.
            chunk: points per block of a grid.
            progress: called with (points so far, points in all or None) after every block.

        Returns:
            How many points this call evaluated.

        Raises:
            ConfigError: a column is missing, of another length or not real; or a block differs from the stored one.
        """
        total = None
        if isinstance(points, Mapping):
            if chunk < 1:
                raise ConfigError(f"chunk must be at least 1, not {chunk}")
            total, points = _grid(points, chunk)
        stored = dict(self._read("SELECT block, inputs FROM blocks"))
        evaluated = so_far = 0
        for number, raw in enumerate(points):
            block = _columns(raw, f"block {number}")
            size, inputs = len(next(iter(block.values()))), _digest(block)
            if stored.get(number, inputs) != inputs:
                raise ConfigError(f"{self.path}: block {number} was swept with other inputs; use another file")
            if number not in stored:
                results = _columns(fn(block), f"the results of block {number}", size)
                self._store(number, inputs, {**block, **results})
                evaluated += size
            so_far += size
            if progress is not None:
                progress(so_far, total)
        return evaluated

    def columns(self) -> Columns:
        """Column name to (points,) float64, over all blocks in their order."""
        return {name: self._column(i) for i, name in enumerate(self._names)}

    def pareto(self, objectives: Mapping[str, bool]) -> Columns:
        """The points that no other one beats.

        Args:
            objectives: column name to whether larger is better.

        Returns:
            All columns of these points.

        Raises:
            ConfigError: no objective, or one that is no column.
        """
        if not objectives:
            raise ConfigError("pareto needs at least one objective")
        for name in objectives:
            if name not in self._names:
                raise ConfigError(f"the sweep has no column {name!r}; {did_you_mean(name, self._names)}")
        columns = self.columns()
        mask = pareto_mask(np.stack([columns[n] for n in objectives], axis=1), list(objectives.values()))
        return {name: column[mask] for name, column in columns.items()}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = connect(self.path)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            if connection.execute("SELECT count(*) FROM names").fetchone() == (0,):
                connection.executemany("INSERT INTO names VALUES (?, ?)", enumerate(self._names))
        return connection

    def _store(self, number: int, inputs: str, block: Columns) -> None:
        for name in self._names:
            if name not in block:
                raise ConfigError(f"block {number} has no column {name!r}; {did_you_mean(name, block)}")
        rows = [(i, number, block[n].astype("<f8").tobytes()) for i, n in enumerate(self._names)]

        def write() -> None:
            with self._connection:
                # Another process may have stored the same block meanwhile: equal inputs, equal results.
                self._connection.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?)", (number, inputs))
                self._connection.executemany("INSERT OR REPLACE INTO data VALUES (?, ?, ?)", rows)

        self._call(write)

    def _column(self, position: int) -> NDArray[np.float64]:
        blobs = self._read("SELECT numbers FROM data WHERE position = ? ORDER BY block", position)
        return np.frombuffer(b"".join(b for (b,) in blobs), dtype="<f8").astype(np.float64)

    def _read(self, statement: str, *values: int) -> list[Any]:
        return self._call(lambda: self._connection.execute(statement, values).fetchall())

    def _call(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (sqlite3.Error, OSError) as e:
            raise ArtifactError(f"cannot use the sweep {self.path}: {e}") from e


def _grid(axes: Mapping[str, ArrayLike], chunk: int) -> tuple[int, Iterator[Columns]]:
    """Number of points of a grid, and its blocks."""
    values = {name: np.atleast_1d(np.asarray(axis)) for name, axis in axes.items()}
    shape = tuple(len(v) for v in values.values())
    total = math.prod(shape) if shape else 0

    def blocks() -> Iterator[Columns]:
        for begin in range(0, total, chunk):
            at = np.unravel_index(np.arange(begin, min(begin + chunk, total)), shape)
            yield {name: v[i] for (name, v), i in zip(values.items(), at, strict=True)}

    return total, blocks()


def _columns(block: Block, place: str, size: int | None = None) -> Columns:
    """A block as float64 columns of one length, or a :class:`ConfigError` that names the wrong one."""
    made = {}
    for name, column in block.items():
        try:
            made[name] = np.asarray(column, dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigError(f"{place}: column {name!r} holds something that is no real number") from None
        size = made[name].size if size is None else size
        if made[name].shape != (size,):
            raise ConfigError(f"{place}: column {name!r} has shape {made[name].shape}, not ({size},)")
    if not made:
        raise ConfigError(f"{place} has no columns")
    return made


def _digest(block: Columns) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, column in sorted(block.items()):
        digest.update(f"{name}:{len(column)};".encode())
        digest.update(column.astype("<f8", copy=False).tobytes())
    return digest.hexdigest()
