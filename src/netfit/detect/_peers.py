"""The peer stage: channels of a group compared with each other in each row."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netfit.errors import ConfigError, did_you_mean
from netfit.kernels import peers
from netfit.kernels.peers import PeerRows, PeerSettings, PeerState
from netfit.streaming import State

__all__ = ["PeerDBSCAN", "PeerStage"]


@dataclass(frozen=True)
class PeerDBSCAN:
    """Which channels of a group stand out from their peers: DBSCAN of the values of one row.

    The largest cluster is normal if it holds at least half of the group; a channel outside of it for `min_duration`
    rows is an alarm. "DeepHYDRA: Resource-Efficient Time-Series Anomaly Detection in Dynamically-Configured Systems"
    (2024) names this T-DBSCAN; here groups never mix, and the clustering is exact and takes a sort.

    With ``eps="auto"`` a channel's usual offset from the median of its group is taken out, and distances are measured
    in its group's usual distance from the median (or the channel's own, where that is larger); both forget. A channel
    that keeps off its peers by less than `auto_eps`, but for long, is an alarm by the sum of what is beyond `shift`:
    "Continuous Inspection Schemes" (Page, 1954). Eight rows of five usual distances are enough at ``shift=3``.

    Args:
        eps: distance of neighbours, in units of the values; one for all groups, one by group, or ``"auto"``.
        min_samples: neighbours of a core point, itself included.
        min_duration: rows in a row that a channel must stand out.
        auto_eps: eps of ``"auto"``, in usual distances.
        shift: usual distances that a channel may keep off its peers for long; counts with ``"auto"``.
        resolution: smallest usual distance, in units of the values; 1 % of the median where that is larger.
        memory: rows after which what is usual is forgotten.

    Raises:
        ConfigError: a number is out of range.

    Example:
        >>> PeerDBSCAN(eps=1.0).labels([1, 1.5, 2, 2.2, 9], groups=["a"] * 5).tolist()
        [0, 0, 0, 0, -1]
    """

    eps: float | Mapping[str, float] | Literal["auto"] = "auto"
    min_samples: int = 4
    min_duration: int = 4
    auto_eps: float = 10.0
    shift: float = 3.0
    resolution: float = 0.0
    memory: int = 4000

    def __post_init__(self) -> None:
        if isinstance(self.eps, str) and self.eps != "auto":
            raise ConfigError(f"eps={self.eps!r}: give a number, one by group, or 'auto'")
        given = {"eps": self.eps} if not isinstance(self.eps, Mapping | str) else {}
        if isinstance(self.eps, Mapping):
            given = {f"eps of {group!r}": eps for group, eps in self.eps.items()}
        for name, value in {**given, "auto_eps": self.auto_eps, "shift": self.shift}.items():
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}={value!r}: distances of neighbours are positive numbers")
        for name in ("min_samples", "min_duration", "memory"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}: choose 1 or more")
        if not self.resolution >= 0:
            raise ConfigError(f"resolution={self.resolution!r}: choose 0 or more")

    def labels(self, x: ArrayLike, groups: Sequence[str], couple: float | None = None) -> NDArray[np.int64]:
        """Cluster one row; -1 is noise, and clusters are numbered through all groups.

        Args:
            x: values, (n,); NaN is noise.
            groups: of each value.
            couple: None keeps groups apart. A number lets them mix: groups lie that far from each other for each step
                of the number in their names (racks of the paper), in two dimensions, by scikit-learn.

        Raises:
            ConfigError: ``eps="auto"``, which needs the rows before; one number of groups does not fit; or a group
                without a number is to be coupled.
        """
        values = np.asarray(x, np.float64)
        names = np.asarray(groups, object)
        if values.shape != names.shape or values.ndim != 1:
            raise ConfigError(f"{values.shape} values and {names.shape} groups: give one group for each value")
        if self.eps == "auto":
            raise ConfigError("eps='auto' learns from the rows before: give a number to cluster a row by itself")
        if couple is not None:
            return _coupled(values, [_number(g) * couple for g in groups], self.eps, self.min_samples)
        out = np.full(len(values), -1, np.int64)
        found = 0
        for group in sorted(set(groups)):
            members = np.flatnonzero(names == group)
            local = peers.labels(values[members], self.eps_of(group), self.min_samples)
            out[members] = np.where(local >= 0, local + found, -1)
            found += int(local.max(initial=-1)) + 1
        return out

    def eps_of(self, group: str) -> float:
        """Distance of neighbours in one group; 0 for automatic.

        Raises:
            ConfigError: eps is given by group, and this one is missing.
        """
        if isinstance(self.eps, Mapping):
            if group not in self.eps:
                raise ConfigError(f"eps has no entry for group {group!r}; {did_you_mean(group, self.eps)}")
            return float(self.eps[group])
        return 0.0 if isinstance(self.eps, str) else float(self.eps)


def _coupled(values: NDArray[np.float64], places: list[float], eps: Any, min_samples: int) -> NDArray[np.int64]:
    from sklearn.cluster import DBSCAN

    if isinstance(eps, Mapping):
        raise ConfigError("coupled groups share one eps: give a number")
    out = np.full(len(values), -1, np.int64)
    there = np.isfinite(values)
    if there.any():
        points = np.stack([np.array(places)[there], values[there]], axis=1)
        out[there] = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(points)
    return out


def _number(group: str) -> int:
    found = re.findall(r"\d+", str(group))
    if not found:
        raise ConfigError(f"group {group!r} has no number in its name: coupled groups lie apart by theirs")
    return int(found[-1])


class PeerStage:
    """`PeerDBSCAN` on a stream whose slots may change.

    Args:
        config: what to ask for.
        min_presence: rows a channel must have been seen before it can alarm.
        lifetime: rows of absence after which a channel is forgotten.
        watch_absence: report channels that vanish or appear.
    """

    def __init__(self, config: PeerDBSCAN, min_presence: int, lifetime: int, watch_absence: bool) -> None:
        self._config = config
        self._settings = PeerSettings(
            auto_eps=config.auto_eps, resolution=config.resolution, shift=config.shift,
            min_samples=config.min_samples, min_duration=config.min_duration, min_presence=min_presence,
            memory=config.memory, lifetime=lifetime, watch_absence=watch_absence,
        )  # fmt: skip
        self._state = PeerState(np.zeros(1, np.int64))
        self._eps = np.empty(0)
        self._groups: list[str] = []

    def unused(self) -> NDArray[np.bool_]:
        """Slots of channels that were never seen or are forgotten."""
        return np.asarray(self._state.channel["seen"] == 0)

    def move(self, old: NDArray[np.int64], groups: list[str], offset: NDArray[np.int64]) -> None:
        """Follow the slots to their new places.

        Args:
            old: old slot of each new one, -1 for a new channel.
            groups: new names.
            offset: new slots of each group.
        """
        state = PeerState(offset)
        known = old >= 0
        for name, array in self._state.channel.items():
            if name not in ("order", "peer_order"):
                state.channel[name][known] = array[old[known]]
        before = {group: i for i, group in enumerate(self._groups)}
        for i, group in enumerate(groups):
            if (j := before.get(group)) is not None:
                state.scale[i], state.warm[i] = self._state.scale[j], self._state.warm[j]
        self._state, self._groups = state, list(groups)
        self._eps = np.array([self._config.eps_of(group) for group in groups])

    def rows(self, x: NDArray[np.float64], source: NDArray[np.int64], dense: bool) -> PeerRows:
        """Compare the channels in the next rows (n, columns)."""
        return peers.rows(x, source, self._eps, self._settings, self._state, dense)

    def state(self) -> State:
        """What a restart needs; the layout of the slots is kept elsewhere."""
        return {
            **{name: array.copy() for name, array in self._state.channel.items() if "order" not in name},
            "scale": self._state.scale.copy(),
            "warm": self._state.warm.copy(),
        }

    def restore(self, state: State, groups: list[str], offset: NDArray[np.int64]) -> None:
        """Go on where `state` was taken, with the slots of that time.

        Raises:
            ConfigError: the state has another number of channels or groups.
        """
        fresh = PeerState(offset)
        for name, target in {**fresh.channel, "scale": fresh.scale, "warm": fresh.warm}.items():
            if "order" in name:
                continue
            found = np.asarray(state.get(name))
            if found.shape != target.shape or found.dtype != target.dtype:
                raise ConfigError(
                    f"a state with {name} of {found.shape} {found.dtype} where {target.shape} is expected"
                )
            target[:] = found
        self._state, self._groups = fresh, list(groups)
        self._eps = np.array([self._config.eps_of(group) for group in groups])
