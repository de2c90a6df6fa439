"""Launches as rows of numbers: what an operator computes, or what instructions a kernel executes.

A device enters only through ratios (time at its peak, waves over its multiprocessors, bytes over its cache), never by
numbers of its own: a forest would learn those by heart, and they say nothing about a device it has not met.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, did_you_mean

from .._base import DeviceSpec
from ._devices import GPUSpec, peak
from ._launch import BITS, KINDS, Launch
from ._ptx import GROUPED, grouped

__all__ = ["ASIDE", "COLUMNS", "EFFICIENCY", "LAUNCH_S", "Samples", "bounds", "matrix", "samples"]

FloatArray = NDArray[np.float64]

EFFICIENCY = 0.8  # of data-sheet peaks that well written kernels reach
LAUNCH_S = 3e-6  # the shortest time between two dependent kernels

_TILES = ((64, 64), (64, 256), (128, 128), (128, 256))  # thread-block tiles that matrix-product libraries use
_ALIGNED = (8, 64)

# Columns by feature set. Those of ASIDE carry the base of a prediction and are not shown to the forest.
COLUMNS: dict[str, tuple[str, ...]] = {
    "op": (
        "kind", "variant", "bits", "weight_bits", "log_m", "log_n", "log_k", "log_count", "log_batch", "log_parts",
        "log_share", "skew", "log_flops", "log_bytes", "log_intensity", "balance", "log_bound", "log_compute",
        "log_memory", "log_l2", "log_sm_work",
        *(f"{what}_{a}x{b}" for a, b in _TILES for what in ("log_waves", "last_wave", "padding")),
        *(f"{size}_mod_{a}" for a in _ALIGNED for size in "mnk"),
        "log_tdp_w",
    ),
    "ptx": (*(f"log_{name}" for name in GROUPED), "log_waves", "balance", "log_bound", "log_tdp_w"),
}  # fmt: skip
ASIDE = frozenset({"log_tdp_w"})
_NEEDS = {"op": "operations or bytes", "ptx": "instruction counts", "settings": "tuning parameters"}


@dataclass(frozen=True, eq=False)
class Samples:
    """Feature rows with what was measured.

    Attributes:
        features: which feature set.
        X: float64 of shape ``(rows, columns)``.
        columns: their names.
        time_s: seconds of each row, NaN where not measured.
        power_w: watts of each row, NaN where not measured.
        labels: ``device``, ``app``, ``kernel``, ``shape``, ``kind`` and ``dtype`` of each row, for splits.
    """

    features: str
    X: FloatArray
    columns: tuple[str, ...]
    time_s: FloatArray
    power_w: FloatArray
    labels: Mapping[str, NDArray[np.str_]]

    def __len__(self) -> int:
        return len(self.X)

    def y(self, quantity: str) -> FloatArray:
        """Seconds, watts or joules of each row.

        Raises:
            ConfigError: no such quantity.
        """
        known = {"time": self.time_s, "power": self.power_w, "energy": self.time_s * self.power_w}
        if quantity not in known:
            raise ConfigError(f"no quantity {quantity!r}; {did_you_mean(quantity, known)}")
        return known[quantity]

    def take(self, rows: Any) -> "Samples":
        """Some of the rows, by mask or numbers."""
        labels = {name: column[rows] for name, column in self.labels.items()}
        return replace(self, X=self.X[rows], time_s=self.time_s[rows], power_w=self.power_w[rows], labels=labels)

    def measured(self, quantity: str) -> "Samples":
        """The rows that have this quantity.

        Raises:
            ConfigError: none has.
        """
        found = self.take(np.isfinite(self.y(quantity)))
        if not len(found):
            raise ConfigError(f"none of {len(self)} launches has a measured {quantity}")
        return found


def samples(launches: Sequence[Launch], features: str, specs: Mapping[str, GPUSpec]) -> Samples:
    """The rows among ``launches`` that have these features, the median of those that did the same work.

    Raises:
        ConfigError: no such feature set, no row has it, or a device lacks a peak.
    """
    if features not in _NEEDS:
        raise ConfigError(f"no feature set {features!r}; {did_you_mean(features, _NEEDS)}")
    rows = _medians([row for row in launches if _has(row, features)])
    if not rows:
        raise ConfigError(f"none of {len(launches)} launches has {_NEEDS[features]} for features={features!r}")
    columns = COLUMNS.get(features) or tuple(sorted({name for row in rows for name in row.settings}))
    X = matrix(rows, features, specs) if features in COLUMNS else _settings(rows, columns)
    measured = [[getattr(row, name) for row in rows] for name in ("time_s", "power_w")]
    time_s, power_w = (np.array([np.nan if v is None else v for v in column], np.float64) for column in measured)
    labels = ("device", "app", "kernel", "kind", "dtype")
    named = {name: np.array([getattr(row, name) for row in rows]) for name in labels}
    return Samples(features, X, columns, time_s, power_w, named | {"shape": _shapes(rows)})


def _medians(rows: Sequence[Launch]) -> list[Launch]:
    """Repeated launches of the same work as one, with their median time and power."""
    same: dict[tuple[str, ...], list[Launch]] = {}
    for row, shape in zip(rows, _shapes(rows), strict=True):
        same.setdefault((row.device, row.app, row.kernel, row.source, str(shape)), []).append(row)
    return [found[0] if len(found) == 1 else _median(found) for found in same.values()]


def _median(rows: Sequence[Launch]) -> Launch:
    times = [row.time_s for row in rows if row.time_s is not None]
    powers = [row.power_w for row in rows if row.power_w is not None]
    time_s, power_w = (float(np.median(known)) if known else None for known in (times, powers))
    return replace(rows[0], time_s=time_s, power_w=power_w)


def _has(row: Launch, features: str) -> bool:
    return bool(row.counts if features == "ptx" else row.settings if features == "settings" else row.flops + row.bytes)


def _settings(rows: Sequence[Launch], columns: Sequence[str]) -> FloatArray:
    return np.array([[row.settings.get(name, 0.0) for name in columns] for row in rows], np.float64)


def matrix(rows: Sequence[Launch], features: str, specs: Mapping[str, GPUSpec]) -> FloatArray:
    """Feature rows of launches, shape ``(rows, columns)``."""
    columns = _op(rows, specs) if features == "op" else _ptx(rows, specs)
    return np.stack([columns[name] for name in COLUMNS[features]], 1)


def bounds(rows: Sequence[Launch], specs: Mapping[str, DeviceSpec]) -> tuple[FloatArray, FloatArray]:
    """Seconds at the peak arithmetic rate, and at the peak memory bandwidth.

    Raises:
        ConfigError: a device has no such peak.
    """
    rates: dict[tuple[str, str], float] = {}
    for row in rows:
        if (row.device, row.dtype) not in rates:
            rates[row.device, row.dtype] = peak(specs[row.device], row.dtype)
    widths = {name: _bandwidth(spec) for name, spec in specs.items()}
    compute = np.array([row.flops / rates[row.device, row.dtype] for row in rows])
    return compute, np.array([row.bytes / widths[row.device] for row in rows])


def _bandwidth(spec: DeviceSpec) -> float:
    found = (spec.bandwidth or {}).get("dram")
    if found is None or not found > 0:
        raise ConfigError(f"device {spec.name!r} has bandwidth {found} of dram; give bytes per second above 0")
    return found


def _log(x: Any) -> FloatArray:
    return np.log(np.maximum(x, 1e-12))


def _of(rows: Sequence[Launch], specs: Mapping[str, GPUSpec], name: str, otherwise: float) -> FloatArray:
    values = {key: getattr(spec, name) or otherwise for key, spec in specs.items()}
    return np.array([values[row.device] for row in rows], np.float64)


def _op(rows: Sequence[Launch], specs: Mapping[str, GPUSpec]) -> dict[str, FloatArray]:
    m, n, k, count, batch, share, flops, moved = np.array(
        [(r.m, r.n, r.k, r.count, r.batch, r.share, r.flops, r.bytes) for r in rows], np.float64
    ).T
    compute, memory = (bound / EFFICIENCY for bound in bounds(rows, specs))
    sms, l2, tdp = _of(rows, specs, "sms", 64), _of(rows, specs, "l2_bytes", 32e6), _of(rows, specs, "tdp_w", 250)
    out = {
        "kind": np.array([KINDS.index(r.kind) if r.kind in KINDS else 0 for r in rows], np.float64),
        "variant": np.array([float(crc32(r.variant.encode()) % 997) for r in rows]),
        "bits": np.array([BITS.get(r.dtype, 32) for r in rows], np.float64),
        "weight_bits": np.array([BITS.get(r.weight_dtype or r.dtype, 32) for r in rows], np.float64),
        "log_m": _log(m), "log_n": _log(n), "log_k": _log(k), "log_count": _log(count), "log_batch": _log(batch),
        "log_parts": _log(count) - _log(batch),  # trees cannot subtract
        "log_share": _log(share),
        "skew": np.array([r.skew for r in rows], np.float64),
        "log_flops": _log(flops), "log_bytes": _log(moved), "log_intensity": _log(flops) - _log(moved),
        "balance": _log(compute) - _log(memory), "log_bound": _log(np.maximum(compute, memory) + LAUNCH_S),
        "log_compute": _log(compute), "log_memory": _log(memory), "log_l2": _log(moved / l2),
        "log_sm_work": _log(np.maximum(1, np.ceil(m / 128) * np.ceil(n / 128) * count) * k / sms),
        "log_tdp_w": _log(tdp),
    }  # fmt: skip
    for a, b in _TILES:
        tiles = np.ceil(m / a) * np.ceil(n / b)
        waves = tiles * count / sms
        out[f"log_waves_{a}x{b}"] = _log(waves)
        out[f"last_wave_{a}x{b}"] = np.ceil(waves) / waves
        out[f"padding_{a}x{b}"] = tiles * a * b / (m * n)
    for a in _ALIGNED:
        out |= {f"{name}_mod_{a}": size % a for name, size in (("m", m), ("n", n), ("k", k))}
    return out


def _ptx(rows: Sequence[Launch], specs: Mapping[str, GPUSpec]) -> dict[str, FloatArray]:
    found = [grouped(row.counts, row.grid, row.block) for row in rows]
    raw = {name: np.array([f[name] for f in found]) for name in GROUPED}
    sms, tdp = _of(rows, specs, "sms", 64), _of(rows, specs, "tdp_w", 250)
    rates = {name: peak(spec, "fp32") / 2 for name, spec in specs.items()}  # a multiply-add is one instruction
    widths = {name: _bandwidth(spec) for name, spec in specs.items()}
    compute = np.array([f["instructions"] / rates[r.device] for f, r in zip(found, rows, strict=True)])
    memory = np.array([f["global_bytes"] / widths[r.device] for f, r in zip(found, rows, strict=True)])
    out = {f"log_{name}": np.log1p(column) for name, column in raw.items()}
    return out | {
        "log_waves": _log(raw["blocks"] * raw["threads_per_block"] / (2048 * sms)),
        "balance": _log(compute + 1e-9) - _log(memory + 1e-9),
        "log_bound": _log(np.maximum(compute, memory) / EFFICIENCY + LAUNCH_S),
        "log_tdp_w": _log(tdp),
    }


def _shapes(rows: Sequence[Launch]) -> NDArray[np.str_]:
    """What makes two launches the same work, on whatever device."""
    return np.array(
        [
            f"{r.kind}:{r.variant}:{r.dtype}:{r.weight_dtype}:{r.m}x{r.n}x{r.k}x{r.count}:{r.batch}:{r.share:g}:{r.skew:g}:"
            f"{r.dataset}"
            + (
                f":{r.kernel}:{r.grid}:{r.block}:{dict(r.settings)}:{sum(r.counts.values())}"
                if r.counts or r.settings
                else ""
            )
            for r in rows
        ]
    )
