"""Measurements kept between runs: small JSON files named after everything a number depends on."""

import contextlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from netfit.env import digest
from netfit.errors import ArtifactError, ConfigError
from netfit.io import read_json, write_json

T = TypeVar("T")


class Cache:
    """A folder of results. A damaged or unreadable entry counts as absent, an unwritable folder as no cache.

    Args:
        folder: made when first written; None for the user's cache of netfit.
        facts: what every entry depends on (processor, runtime, version, threads).
    """

    def __init__(self, folder: Path | None, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder or _user_cache(), facts

    def get(self, read: Callable[[Any], T], *key: Any) -> T | None:
        """What ``read`` makes of the value stored under ``key``, or None."""
        path = self._path(key)
        try:
            return read(read_json(path)) if path.exists() else None
        except ArtifactError:
            return None

    def put(self, value: Any, *key: Any) -> None:
        """Store a JSON value under ``key``."""
        with contextlib.suppress(ArtifactError):  # a full disk must not cost the user the measurement
            write_json(self._path(key), value)

    def _path(self, key: tuple[Any, ...]) -> Path:
        return self.folder / f"{digest([self.facts, key])[:32]}.json"


def _user_cache() -> Path:
    import pooch

    return Path(pooch.os_cache("netfit")) / "host"


def file_digest(path: Path) -> str:
    """SHA-256 of an exported network: the bytes of the file, and of its weights where they lie beside it.

    Raises:
        ConfigError: the file cannot be read.
    """
    state = sha256()
    weights = path.with_suffix(".bin")
    try:
        for part in [path, *([weights] if path.suffix == ".xml" and weights.exists() else [])]:
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    state.update(block)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror or e}") from e
    return state.hexdigest()
