"""Configurations that Kernel Tuner measured, from its cache files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netfit.errors import ArtifactError
from netfit.io import read_json

from ._launch import Launch

__all__ = ["read"]

_ENDINGS = ("", "}\n}", "}}", "}")  # a session that was killed leaves its cache open


def read(path: Path) -> Iterator[Launch]:
    """One launch per valid configuration; its parameters are the counts, so that they are features."""
    body = _body(path)
    try:
        kernel, device = str(body["kernel_name"]), str(body["device_name"])
        names = [str(name) for name in body["tune_params_keys"]]
        size = body.get("problem_size", [])
        size = [size] if isinstance(size, int | float | str) else list(size)
        for entry in body["cache"].values():
            time_ms = entry.get("time")
            if isinstance(time_ms, int | float) and 0 < time_ms < 1e20:  # failures are texts, old ones 1e20
                yield _launch(entry, names, kernel, device, "x".join(map(str, size)), time_ms * 1e-3, path.name)
    except (KeyError, TypeError, AttributeError) as e:
        raise ArtifactError(f"{path} is no Kernel Tuner cache: {type(e).__name__} {e}") from e


def _body(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except ArtifactError as error:
        if not path.is_file():
            raise
        found = _closed(path, error)
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} is no Kernel Tuner cache: it holds a {type(found).__name__}")
    return found


def _closed(path: Path, error: ArtifactError) -> Any:
    """The content of a cache whose last brackets are missing."""
    text = path.read_text(encoding="utf-8", errors="replace").rstrip().rstrip(",")
    for ending in _ENDINGS[1:]:
        try:
            return json.loads(text + ending)
        except ValueError:
            continue
    raise error


def _launch(
    entry: dict[str, Any], names: list[str], kernel: str, device: str, size: str, time_s: float, file: str
) -> Launch:
    values = {name: entry[name] for name in names}
    block = tuple(int(values.get(f"block_size_{axis}", 1)) for axis in "xyz")
    return Launch(
        device,
        kernel,
        kernel,
        block=block,
        settings={name: float(v) for name, v in values.items() if isinstance(v, int | float)},
        time_s=time_s,
        power_w=entry["ps_power"] if isinstance(entry.get("ps_power"), int | float) else None,
        dataset=size,
        source=f"kernel_tuner:{file}",
    )
