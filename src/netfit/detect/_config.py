"""Settings of a detector as JSON, and back through a list of known types."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from netfit.detect._forecaster import Forecaster
from netfit.detect._groups import describe
from netfit.detect._peers import PeerDBSCAN
from netfit.detect._reduce import GroupReducer
from netfit.detect._spot import SPOT
from netfit.detect._window_pca import WindowPCA
from netfit.errors import ArtifactError, ConfigError

__all__ = ["from_json", "to_json"]

_STAGES = ("peer", "reducer", "temporal", "threshold")
_GROUPINGS = ("group_by", "entity")


def _known() -> dict[str, type]:

    return {t.__name__: t for t in (PeerDBSCAN, GroupReducer, SPOT, WindowPCA, Forecaster)}


def to_json(detector: Any) -> dict[str, Any]:
    """The settings; functions by their names.

    Raises:
        ConfigError: a stage is of a type that cannot be read back.
    """
    found = dict(detector.get_params(deep=False))
    for name in _GROUPINGS:
        found[name] = describe(found[name])
    for name in _STAGES:
        stage = found[name]
        if stage is not None:
            if type(stage) is not _known().get(type(stage).__name__):
                raise ConfigError(f"{name}={type(stage).__name__}: only netfit's own stages can be saved")
            found[name] = {"type": type(stage).__name__} | {
                f.name: getattr(stage, f.name) for f in fields(_known()[type(stage).__name__]) if f.compare
            }
    return found


def from_json(config: Any, functions: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a detector.

    Args:
        config: what `to_json` made.
        functions: groupings that were functions, by name of the argument.

    Raises:
        ArtifactError: an unknown type or setting.
        ConfigError: a function is missing.
    """
    if not isinstance(config, dict):
        raise ArtifactError("the saved state holds no settings")
    found = dict(config)
    for name in _GROUPINGS:
        if name in functions:
            found[name] = functions[name]
        elif "function " in str(found.get(name)):
            raise ConfigError(f"{name} was {found[name]}, which no file holds: give it to load({name}=...)")
        elif isinstance(found.get(name), dict):
            found[name] = found[name]["mapping"]
    for name in _STAGES:
        if (stage := found.get(name)) is not None:
            found[name] = _stage(name, dict(stage))
    return found


def _stage(name: str, stage: dict[str, Any]) -> Any:
    kind = _known().get(str(stage.pop("type", None)))
    if kind is None or not set(stage) <= {f.name for f in fields(kind)}:
        raise ArtifactError(f"the saved {name} is of a type or has settings that this netfit does not know")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in stage.items()})
