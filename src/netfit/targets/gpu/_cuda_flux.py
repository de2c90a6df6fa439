"""Executed PTX instructions as CUDA Flux writes them: text files of one run, or its collected SQLite tables.

Nothing of it ships with netfit: the published tables carry no licence, users import their own copy.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from math import prod
from pathlib import Path
from typing import Any

from netfit.errors import ArtifactError

from ._launch import Launch

__all__ = ["read"]

_AXES = (("gX", "gY", "gZ"), ("bX", "bY", "bZ"))
_NOT_OPCODES = frozenset({"gX", "gY", "gZ", "bX", "bY", "bZ", "shm", "time", "lseq", "mode"})
_FIRST_COUNT = 10  # name, grid, block, shared memory, microseconds, mode; then one counter per basic block
_FULL, _BLOCK, _WARP = range(3)  # profiling modes: all threads, one thread block, one warp
_ITEM = re.compile(r"^(\s*)- (.+?)(:?)\s*$")

_Key = tuple[str, str, str, int]


def read(
    path: Path,
    analysis: str | Path | None,
    device: str,
    times: str | Path | None,
    powers: str | Path | None,
    app: str | None,
) -> Iterator[Launch]:
    """Launches of a ``bbc.txt`` or of a table ``fluxmetrics``; see `KernelDB.from_cuda_flux`."""
    try:
        with path.open("rb") as file:
            database = file.read(15) == b"SQLite format 3"
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror}") from e
    if database:
        return _from_tables(path, device, times, powers)
    return _from_text(path, Path(analysis or path.parent / "PTX_Analysis.yml"), device, app or path.parent.name)


def _from_text(path: Path, analysis: Path, device: str, app: str) -> Iterator[Launch]:
    kernels = _blocks(analysis)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ArtifactError(f"cannot read {path}: {e}") from e
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = (word.strip() for word in line.split(","))
        try:
            values = [int(word) for word in rest]
            blocks = kernels[name]
            grid, block, (shared, microseconds, mode) = tuple(values[:3]), tuple(values[3:6]), values[6:9]
        except (ValueError, KeyError) as e:
            raise ArtifactError(f"{path}, line {number}: {type(e).__name__} {e}") from e
        counters = values[_FIRST_COUNT - 1 :]
        if len(counters) != len(blocks):
            raise ArtifactError(f"{path}, line {number}: {len(counters)} counters of {name}, not {len(blocks)}")
        counts = _counts(blocks, counters, _scale(mode, grid, block))
        yield Launch(
            device, app, name, grid=grid, block=block, shared_bytes=shared, counts=counts,
            time_s=max(microseconds, 1) * 1e-6, source=f"cuda_flux:{path.name}",
        )  # fmt: skip


def _scale(mode: int, grid: Sequence[int], block: Sequence[int]) -> float:
    """Only one thread block or warp was counted: the others are taken to do the same."""
    return {_BLOCK: float(prod(grid)), _WARP: prod(grid) * max(1.0, prod(block) / 32)}.get(mode, 1.0)


def _counts(blocks: Sequence[Sequence[str]], counters: Sequence[int], scale: float) -> dict[str, float]:
    out: dict[str, float] = {}
    for opcodes, times in zip(blocks, counters, strict=True):
        for opcode in opcodes if times else ():
            out[opcode] = out.get(opcode, 0.0) + times * scale
    return out


def _blocks(path: Path) -> dict[str, list[list[str]]]:
    """Opcodes of each basic block by kernel: a fixed subset of YAML, lists in lists by indentation."""
    kernels: dict[str, list[list[str]]] = {}
    current: list[list[str]] | None = None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ArtifactError(f"cannot read {path}: {e}") from e
    for number, line in enumerate(lines, 1):
        item = _ITEM.match(line)
        if line.strip().startswith("Name:"):
            current = kernels.setdefault(line.split(":", 1)[1].strip(), [])
        elif item and current is not None and item[1]:
            if item[3]:
                current.append([])
            elif current:
                current[-1].append(item[2])
            else:
                raise ArtifactError(f"{path}, line {number}: the instruction {item[2]!r} is in no basic block")
    if not kernels:
        raise ArtifactError(f"{path} names no kernel; expected lines such as 'Name: kernel' and '- entry:'")
    return kernels


def _from_tables(path: Path, device: str, times: str | Path | None, powers: str | Path | None) -> Iterator[Launch]:
    metrics: dict[_Key, dict[str, float]] = {}
    names: dict[_Key, str] = {}
    query = "SELECT bench, app, dataset, cast(lseq AS INTEGER), name, metric, cast(value AS REAL) FROM fluxmetrics"
    for bench, app, data, number, name, metric, value in _query(path, query):
        key = (bench, app, data, number)
        metrics.setdefault(key, {})[metric] = float(value)
        names[key] = name
    seconds = None if times is None else _means(Path(times), "kerneltime", "time", 1e-6)
    watts = {} if powers is None else _means(Path(powers), "kernelpower", "power", 1.0)
    for key, found in metrics.items():
        time_s = found.get("time", 0.0) * 1e-6 if seconds is None else seconds.get(key)
        grid, block = (tuple(int(found.get(axis, 1)) for axis in axes) for axes in _AXES)
        yield Launch(
            device, f"{key[0]}/{key[1]}", names[key], grid=grid, block=block,
            shared_bytes=int(found.get("shm", 0)), dataset=key[2], power_w=watts.get(key),
            counts={k: v for k, v in found.items() if k not in _NOT_OPCODES},
            time_s=time_s or None, source=f"cuda_flux:{path.name}",
        )  # fmt: skip


def _means(path: Path, table: str, column: str, unit: float) -> dict[_Key, float]:
    """Mean over the repeats of each launch."""
    keys = "bench, app, dataset, cast(lseq AS INTEGER)"
    query = f"SELECT {keys}, avg({column}) FROM {table} WHERE {column} > 0 GROUP BY {keys}"
    return {(a, b, c, d): value * unit for a, b, c, d, value in _query(path, query)}


def _query(path: Path, query: str) -> list[tuple[Any, ...]]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
            return store.execute(query).fetchall()
    except sqlite3.Error as e:
        raise ArtifactError(f"cannot read {path}: {e}") from e
