"""What a study is about, kept in its store, and the refusal to go on with something else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..env import digest, jsonable
from ..errors import ConfigError
from ._records import Goal
from ._space import Dimension, Float, describe, revive

if TYPE_CHECKING:
    import optuna

__all__ = ["Identity", "settle"]

_KEY = "netfit"
_SHOWN = 3


@dataclass(frozen=True)
class Identity:
    """Space, goal, seed and fingerprint of a study."""

    space: dict[str, Dimension]
    goal: Goal
    seed: int
    fingerprint: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """The JSON form."""
        space = {name: describe(d) for name, d in self.space.items()}
        made = {"space": space, "goal": asdict(self.goal), "seed": self.seed, "fingerprint": self.fingerprint}
        digest(made)  # a ConfigError when the fingerprint is not JSON
        return dict(json.loads(json.dumps(made, default=jsonable)))


def settle(study: optuna.Study, wanted: Identity, allow_drift: bool) -> dict[str, Dimension]:
    """Write a new study's identity, or compare it with the one the store holds.

    Returns:
        Every dimension the store knows, those of an earlier space included: older trials are read with them.

    Raises:
        ConfigError: the store holds another identity and drift is not allowed or not possible.
    """
    new = wanted.plain()
    old = study.user_attrs.get(_KEY)
    if old is None:
        if study.get_trials(deepcopy=False) and not allow_drift:
            raise ConfigError("the store holds trials that netfit did not make; allow_drift=True uses them anyway")
        study.set_user_attr(_KEY, new)
        return dict(wanted.space)
    _refuse_misreading(old, new)
    differences = list(_differences(old, new))
    if not differences:
        return dict(wanted.space)
    if not allow_drift:
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise ConfigError(
            f"the store holds another study: {'; '.join(differences[:_SHOWN])}{more}; "
            "use another directory, or allow_drift=True to go on"
        )
    merged = {**old["space"], **new["space"]}
    study.set_user_attr(_KEY, {**new, "space": merged})
    return {name: revive(d) for name, d in merged.items()}


def _refuse_misreading(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Some drift would make old trials mean something else: that is refused in any case."""
    if old["goal"]["maximize"] != new["goal"]["maximize"]:
        raise ConfigError("the store holds a study with the opposite goal.maximize; use another directory")
    for name in old["space"].keys() & new["space"].keys():
        before, now = old["space"][name], new["space"][name]
        if before != now and not (before[0] == now[0] == Float.__name__):
            raise ConfigError(
                f"space[{name!r}] was {revive(before)}, now {revive(now)}: its old trials would be misread; "
                "use another directory or another name"
            )


def _differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{place}.{key}" if place else key)
    elif old != new:
        yield f"{place} was {_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
