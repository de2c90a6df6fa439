"""The state of a stream on disk: nested mappings of arrays and JSON values, as one artifact."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from netfit.env import jsonable
from netfit.errors import ArtifactError, ConfigError
from netfit.io import read_artifact, write_artifact

__all__ = ["State", "Stateful", "load_state", "save_state"]

State = Mapping[str, Any]  # names without "/" -> numpy array, JSON value, or State
_SEPARATOR = "/"


@runtime_checkable
class Stateful(Protocol):
    """A stage of a stream that can be stopped and gone on with."""

    def state(self) -> State:
        """What a restart needs: a mapping of numpy arrays, JSON values and such mappings; later steps do not touch
        it."""

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""


def save_state(path: str | Path, kind: str, state: State, identity: Mapping[str, Any] | None = None) -> None:
    """Write a state; a reader, or a power cut, meets the old one or the new one.

    Args:
        path: folder of the artifact.
        kind: of stage, such as ``"detect"``.
        state: nested mapping of numpy arrays and JSON values. Floats that are not finite belong into arrays.
        identity: settings that must be the same where the state is loaded, JSON-able.

    Raises:
        ArtifactError: a value cannot be stored, or the disk is full or read-only.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(Path(folder) / "s", "demo", {"step": 3, "rows": {"last": np.arange(2)}}, {"size": 8})
        ...     load_state(Path(folder) / "s", "demo", {"size": 8})
        {'step': 3, 'rows': {'last': array([0, 1])}}
    """
    arrays: dict[str, NDArray[Any]] = {}
    plain = _split(path, state, "", arrays)
    write_artifact(path, {"kind": kind, "identity": dict(identity or {}), "state": plain}, arrays)


def load_state(path: str | Path, kind: str, identity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read what `save_state` wrote; arrays are writable copies.

    Args:
        path: folder of the artifact.
        kind: that it must have.
        identity: settings that it must have been saved with; None asks for nothing.

    Raises:
        ArtifactError: it is missing, damaged, or of another kind.
        ConfigError: it was saved with other settings.
    """
    found = read_artifact(path, "np")
    if found.meta.get("kind") != kind or not isinstance(found.meta.get("state"), dict):
        raise ArtifactError(f"{path} holds no state of {kind!r} but {str(found.meta.get('kind'))[:40]!r}")
    _check_identity(path, found.meta.get("identity"), identity)
    state: dict[str, Any] = found.meta["state"]
    for name, array in found.tensors.items():
        *parents, last = name.split(_SEPARATOR)
        place = state
        for parent in parents:
            place = place.get(parent)  # type: ignore[assignment]
            if not isinstance(place, dict):
                raise ArtifactError(f"{path} is damaged: array {name!r} has no place in the state")
        place[last] = array
    return state


def _check_identity(path: str | Path, saved: Any, wanted: Mapping[str, Any] | None) -> None:
    if wanted is None:
        return
    old = saved if isinstance(saved, dict) else {}
    new = json.loads(json.dumps(dict(wanted), default=jsonable))  # as a reader will see it: lists, not tuples
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            was, now = old.get(name), new.get(name)
            raise ConfigError(f"{path} is a state of {name}={was!r}, not {now!r}: give the same, or another place")


def _split(path: str | Path, state: State, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The JSON part of a state; its arrays go to `arrays`."""
    plain: dict[str, Any] = {}
    for name, value in state.items():
        if not isinstance(name, str) or _SEPARATOR in name:
            raise ArtifactError(f"cannot write {path}: {name!r} is no name in a state: text without {_SEPARATOR!r}")
        if isinstance(value, np.ndarray):
            arrays[prefix + name] = value
        elif isinstance(value, Mapping):
            plain[name] = _split(path, value, f"{prefix}{name}{_SEPARATOR}", arrays)
        else:
            plain[name] = value
    return plain
