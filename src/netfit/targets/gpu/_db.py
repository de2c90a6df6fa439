"""`KernelDB`: measured kernel launches of any source in one SQLite file."""

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from netfit.errors import ArtifactError, ConfigError, did_you_mean

from . import _aiconfigurator, _csv, _cuda_flux, _kernel_tuner, _torch_profiler
from ._devices import GPUSpec, device
from ._features import Samples, samples
from ._launch import Launch

__all__ = ["KernelDB"]

FORMAT = 2
_COLUMNS = tuple(f.name for f in fields(Launch))


class KernelDB:
    """Measured launches, one row each, in an SQLite file.

    Every ``from_...`` method adds the rows of one source and returns how many. Nothing measured ships with netfit.

    Args:
        path: of the file, made when it is not there; None keeps all in memory.

    Raises:
        ArtifactError: the file is no kernel database.

    >>> db = KernelDB()
    >>> db.add([Launch(device="h100", app="net", kernel="mm", kind="gemm", m=8, n=8, k=8, time_s=3e-6)])
    1
    >>> len(db)
    1
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(":memory:" if path is None else str(path))
            self._make()
        except (sqlite3.Error, OSError) as e:
            raise ArtifactError(f"{path} is no kernel database: {e}") from e

    def _make(self) -> None:
        version = self._store.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise ArtifactError(f"{self.path} has format {version}, this netfit reads {FORMAT}")
        if version == 0 and self._store.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ArtifactError(f"{self.path} is another program's database")
        with self._store as store:
            store.execute(f"CREATE TABLE IF NOT EXISTS launches ({', '.join(_COLUMNS)})")
            store.execute("CREATE TABLE IF NOT EXISTS devices (name TEXT PRIMARY KEY, spec TEXT)")
            store.execute(f"PRAGMA user_version = {FORMAT}")

    def __len__(self) -> int:
        return int(self._store.execute("SELECT count(*) FROM launches").fetchone()[0])

    def __repr__(self) -> str:
        return f"KernelDB({str(self.path or 'in memory')!r}, {len(self)} launches)"

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def add(self, launches: Iterable[Launch]) -> int:
        """Add rows; all of them or, when one is refused, none.

        Raises:
            ConfigError: a size, time or power is no positive number.
        """
        rows = [_row(number, launch) for number, launch in enumerate(launches)]
        marks = ", ".join("?" * len(_COLUMNS))
        with self._store as store:
            store.executemany(f"INSERT INTO launches VALUES ({marks})", rows)
        return len(rows)

    def add_device(self, spec: GPUSpec) -> None:
        """Describe a device that the built-in table does not know, or describe one better."""
        text = json.dumps(asdict(spec))
        with self._store as store:
            store.execute("INSERT OR REPLACE INTO devices VALUES (?, ?)", (spec.name, text))

    def spec(self, name: str) -> GPUSpec:
        """What is known of a device of this database.

        Raises:
            ConfigError: nothing is; the message says what to call.
        """
        found = self._store.execute("SELECT spec FROM devices WHERE name = ?", (name,)).fetchone()
        if found:
            return GPUSpec(**json.loads(found[0]))
        try:
            return device(name)
        except ConfigError as e:
            raise ConfigError(f"{e}; db.add_device(GPUSpec({name!r}, flops=..., bandwidth=...)) describes it") from e

    def summary(self) -> list[dict[str, Any]]:
        """Launches, kernels and applications by source and device."""
        query = (
            "SELECT source, device, count(*), count(DISTINCT kernel), count(DISTINCT app), count(power_w) "
            "FROM launches GROUP BY source, device ORDER BY source, device"
        )
        names = ("source", "device", "launches", "kernels", "apps", "with_power")
        return [dict(zip(names, row, strict=True)) for row in self._store.execute(query)]

    def launches(self, **only: str | Sequence[str]) -> list[Launch]:
        """Rows in the order they were added.

        Args:
            **only: value, or several, that a column must have, such as ``device="h100_sxm"``.

        Raises:
            ConfigError: no such column.
        """
        tests, values = [], []
        for name, wanted in only.items():
            if name not in _COLUMNS:
                raise ConfigError(f"launches have no column {name!r}; {did_you_mean(name, _COLUMNS)}")
            several = [wanted] if isinstance(wanted, str) else list(wanted)
            tests.append(f"{name} IN ({', '.join('?' * len(several))})")
            values += several
        where = " WHERE " + " AND ".join(tests) if tests else ""
        query = f"SELECT {', '.join(_COLUMNS)} FROM launches{where} ORDER BY rowid"
        return [_launch(row) for row in self._store.execute(query, values)]

    def samples(self, features: str = "op", **only: str | Sequence[str]) -> Samples:
        """Feature rows, times and powers, ready for `KernelPredictor.fit`.

        Args:
            features: ``"op"`` (what an operator computes), ``"ptx"`` (what instructions it executes) or
                ``"settings"`` (its tuning parameters).
            **only: as for `launches`.

        Raises:
            ConfigError: no row has these features, or a device has no data sheet.
        """
        rows = self.launches(**only)
        return samples(rows, features, {name: self.spec(name) for name in {row.device for row in rows}})

    def from_torch_profiler(self, path: str | Path, app: str | None = None, device: str | None = None) -> int:
        """Kernels of a trace that ``torch.profiler`` wrote (``export_chrome_trace``), JSON or gzipped JSON.

        A row is an operator: its kernels' summed durations, with launch grid, block, shared memory and registers of
        the longest. A trace without kernels gives its CPU operators, on device ``"cpu"``. Record shapes
        (``record_shapes=True``): without them only the launch is known.

        Args:
            path: of the trace.
            app: name of the application; the file's name by default.
            device: overrides the name in the trace.

        Raises:
            ArtifactError: it is no such trace, or holds no operator.
        """
        return self.add(_torch_profiler.read(Path(path), app, device))

    def from_cuda_flux(
        self,
        path: str | Path,
        analysis: str | Path | None = None,
        *,
        device: str,
        times: str | Path | None = None,
        powers: str | Path | None = None,
        app: str | None = None,
    ) -> int:
        """Executed PTX instructions as CUDA Flux counts them.

        Args:
            path: ``bbc.txt``, or an SQLite file with a table ``fluxmetrics``.
            analysis: ``PTX_Analysis.yml`` beside a ``bbc.txt``; the file of that name by default.
            device: where times and powers were measured.
            times: SQLite file with a table ``kerneltime`` (microseconds). Without it the times of the counting run
                itself are taken, which contain the counting.
            powers: SQLite file with a table ``kernelpower`` (watts).
            app: name of the application of a ``bbc.txt``; its folder's name by default.

        Raises:
            ArtifactError: a file is not what it should be.
        """
        return self.add(_cuda_flux.read(Path(path), analysis, device, times, powers, app))

    def from_kernel_tuner(self, path: str | Path) -> int:
        """Valid configurations of a Kernel Tuner cache; one that was never closed is read as far as it goes.

        Raises:
            ArtifactError: it is no such cache.
        """
        return self.add(_kernel_tuner.read(Path(path)))

    def from_aiconfigurator(
        self,
        systems: Sequence[str],
        *,
        kinds: Sequence[str] = ("gemm",),
        framework: str = "trtllm",
        dtypes: Sequence[str] = ("bfloat16",),
        root: str | Path | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> int:
        """Measured kernels of the package ``aiconfigurator-core`` (Apache-2.0), which is read, never imported.

        Args:
            systems: such as ``["h100_sxm", "a100_sxm"]``.
            kinds: ``"gemm"``, ``"context_attention"``, ``"generation_attention"``, ``"moe"``.
            framework: ``"trtllm"``, ``"vllm"`` or ``"sglang"``; its newest measurement, for attention and MoE the
                newest with power where one has it.
            dtypes: precisions by the table's own names; empty takes all.
            root: folder with ``aiconfigurator_core/systems``; ``$NETFIT_GPU_DATA``, then the installed package.
            limit: at most so many rows of each file, drawn at random.
            seed: of that draw.

        Raises:
            DataNotFound: the package is not there.
            ConfigError: no such system, kind or framework in it.
        """
        return self.add(_aiconfigurator.read(systems, kinds, framework, dtypes, root, limit, seed))

    def from_csv(self, path: str | Path, map: Mapping[str, str], **constant: Any) -> int:
        """Rows of a CSV file with a header line.

        Args:
            path: of the file.
            map: column of a launch to column of the file, such as ``{"m": "M", "time_ms": "latency"}``; times may be
                given as ``time_s``, ``time_ms`` or ``time_us``.
            **constant: columns that are the same in every row, such as ``device="h100"``.

        Raises:
            ConfigError: a column does not exist, or a cell is no number; the message names line and column.
            ArtifactError: the file cannot be read.
        """
        return self.add(_csv.read(Path(path), map, constant))


def _row(number: int, launch: Launch) -> tuple[Any, ...]:
    for name in ("time_s", "power_w"):
        value = getattr(launch, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"launch {number} ({launch.kernel}): {name} = {value}; allowed are numbers above 0")
    for name in ("m", "n", "k", "count"):
        if getattr(launch, name) < 1:
            raise ConfigError(f"launch {number} ({launch.kernel}): {name} = {getattr(launch, name)}; allowed from 1")
    values = (getattr(launch, name) for name in _COLUMNS)
    return tuple(_cell(value) for value in values)


def _cell(value: Any) -> Any:
    if isinstance(value, dict | tuple):
        return json.dumps(value, default=float)
    return value.item() if isinstance(value, np.generic) else value


def _launch(row: Sequence[Any]) -> Launch:
    given = dict(zip(_COLUMNS, row, strict=True))
    given |= {name: tuple(json.loads(given[name])) for name in ("grid", "block")}
    given |= {name: json.loads(given[name]) for name in ("counts", "settings")}
    return Launch(**given)
