"""May this run directory be gone on with: by this process, with these arguments, on this machine?"""

import json
from pathlib import Path
from typing import Any

from netfit.env import fingerprint, jsonable
from netfit.errors import ArtifactError, ConfigError
from netfit.io import read_json

from ._owner import is_alive

# What may differ between a run and its resumption without making its numbers incomparable. The commit is
# recorded but not compared: the version says what was released, and a commit of a text is no drift.
_MAY_DIFFER = ("git", "governor")


def resumed(folder: Path, wanted: dict[str, Any], allow_drift: bool, join: bool) -> dict[str, Any] | None:
    """The state of the run that is there, if it may be gone on with or joined; None when there is none."""
    place = folder / "run.json"
    if not place.exists():
        if foreign := sorted(p.name for p in folder.iterdir() if p.name not in (".lock", "log.txt")):
            raise ConfigError(f"{folder} holds {foreign[0]!r} but no run.json: name a new directory")
        return None
    state = read_json(place)
    if not isinstance(state, dict) or not {"command", "arguments", "seed", "fingerprint"} <= state.keys():
        raise ArtifactError(f"{place} is damaged: it does not describe a run")
    owner = state.get("owner")
    if owner and is_alive(owner) and not join:
        raise ConfigError(
            f"{folder} is in use by process {owner['pid']} on {owner['host']} since {state.get('opened')};"
            " wait for it or name another directory"
        )
    _check_same(folder, state, wanted)
    if not allow_drift:
        _check_fingerprint(folder, state["fingerprint"])
    return state


def _check_same(folder: Path, state: dict[str, Any], wanted: dict[str, Any]) -> None:
    old = {"command": state["command"], "seed": state["seed"], **state["arguments"]}
    new = {"command": wanted["command"], "seed": wanted["seed"], **wanted["arguments"]}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ConfigError(
                f"{folder} was started with {name}={old.get(name)!r}, not {new.get(name)!r};"
                " give the same value or another run directory"
            )


def _check_fingerprint(folder: Path, old: dict[str, Any]) -> None:
    new = plain(fingerprint())
    for name in sorted((old.keys() | new.keys()) - set(_MAY_DIFFER)):
        if old.get(name) != new.get(name):
            was, now = _difference(old.get(name), new.get(name))
            raise ConfigError(
                f"{folder} was started with {name} {was}, now it is {now}: numbers would not be"
                " comparable; allow the drift or start another run"
            )


def _difference(old: Any, new: Any) -> tuple[Any, Any]:
    """Only what differs: a message with every version would hide the one that changed."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        return {key: old.get(key) for key in keys}, {key: new.get(key) for key in keys}
    return old, new


def plain(obj: dict[str, Any]) -> dict[str, Any]:
    """A dict as JSON gives it back, so that what is compared with run.json went the same way."""
    try:
        return json.loads(json.dumps(obj, default=jsonable, allow_nan=False))
    except (TypeError, ValueError) as e:
        raise ConfigError(f"a run's arguments must be JSON: {e}") from e
