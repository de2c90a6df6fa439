"""Measured launches from a CSV file."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from netfit.errors import ArtifactError, ConfigError, did_you_mean

from ._launch import Launch

__all__ = ["read"]

_TIMES = {"time_ms": 1e-3, "time_us": 1e-6}
_TEXT = ("device", "app", "kernel", "kind", "variant", "dtype", "weight_dtype", "dataset", "source")
_WHOLE = ("m", "n", "k", "count", "shared_bytes", "registers")
_NUMBER = ("share", "skew", "flops", "bytes", "time_s", "power_w", *_TIMES)
_KNOWN = tuple(f.name for f in fields(Launch) if f.name not in ("grid", "block", "counts")) + tuple(_TIMES)


def read(path: Path, map: Mapping[str, str], constant: Mapping[str, Any]) -> Iterator[Launch]:
    """One launch per line; matrix products without operations or bytes get those of their sizes."""
    for name in (*map, *constant):
        if name not in _KNOWN:
            raise ConfigError(f"launches have no column {name!r}; {did_you_mean(name, _KNOWN)}")
    for name in ("device", "app", "kernel"):
        if name not in map and name not in constant:
            raise ConfigError(f"map names no column for {name!r}; give map={{{name!r}: ...}} or {name}=...")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            header = lines.fieldnames or []
            for name, column in map.items():
                if column not in header:
                    raise ConfigError(f"{path} has no column {column!r} for {name}; {did_you_mean(column, header)}")
            for number, line in enumerate(lines, 2):
                given = {name: _value(path, number, name, line[column]) for name, column in map.items()}
                yield _launch(dict(constant) | given, path)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ArtifactError(f"cannot read {path}: {e}") from e


def _value(path: Path, number: int, name: str, text: str | None) -> Any:
    if name in _TEXT:
        return text or ""
    try:
        value = float(text or "")
    except ValueError:
        raise ConfigError(f"{path}, line {number}: {name} is {text!r}; allowed are numbers") from None
    if name in _WHOLE:
        if not value.is_integer():
            raise ConfigError(f"{path}, line {number}: {name} is {text!r}; allowed are whole numbers")
        return int(value)
    return value


def _launch(values: dict[str, Any], path: Path) -> Launch:
    for name, scale in _TIMES.items():
        if name in values:
            values["time_s"] = values.pop(name) * scale
    launch = Launch(**{"source": f"csv:{path.name}"} | values)
    return launch if launch.flops or launch.bytes or launch.m * launch.n * launch.k == 1 else launch.product()
