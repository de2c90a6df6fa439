"""The estimator."""

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin

from netfit.detect._alerts import Alert
from netfit.detect._config import from_json, to_json
from netfit.detect._cost import Cost, cost_of
from netfit.detect._engine import _FLEET, Engine, Level, Setup
from netfit.detect._forecaster import ForecasterModel
from netfit.detect._frame import Frame, as_frame, unchecked
from netfit.detect._groups import GroupBy
from netfit.detect._peers import PeerDBSCAN
from netfit.detect._reduce import GroupReducer
from netfit.detect._spot import SPOT
from netfit.detect._window_pca import Temporal, WindowPCA
from netfit.errors import ConfigError, did_you_mean
from netfit.streaming import State, load_state, save_state

if TYPE_CHECKING:
    from netfit.surgery import Policy

__all__ = ["HybridDetector"]

_KIND = "detect"
_LEVELS = ("channel", "entity", "group", "time")


class HybridDetector(OutlierMixin, BaseEstimator):
    """Finds what differs from its peers now, and what differs from its past, among channels that come and go.

    As in scikit-learn, `score_samples` and `decision_function` are lower for what is abnormal and `predict` is -1
    there; `anomaly_scores` is the positive form: above 1 is an alarm. (PyOD's scores are higher for what is abnormal.)

    Every call may have other columns. Nothing depends on their order or on how rows are cut into calls. There is no
    training to wait for: peers are compared from the first row, `fit` is `partial_fit` from nothing, and a forecaster
    is the only stage that trains in `fit`.

    "DeepHYDRA: Resource-Efficient Time-Series Anomaly Detection in Dynamically-Configured Systems" (2024).

    Args:
        group_by: which channels are peers, by their names: a label of names like ``"rack=r1,metric=cpu"``, a regular
            expression with a named group, a mapping, a function, or a list of those; None compares all with each other.
        entity: what one alert is about, in the same forms, such as ``"node"``: its channels are also watched together
            over time. None: alerts are about groups.
        peer: settings of the comparison.
        reducer: what the temporal stage sees of each group.
        temporal: `WindowPCA`, `Forecaster`, or None for peers only.
        threshold: of the temporal scores.
        combine: ``"any"`` stage alarms, or only ``"peer"`` or ``"temporal"``.
        absent: ``"alert"`` when a channel vanishes while half of its peers are there, and when one appears; or
            ``"ignore"``.
        min_presence: rows a channel must have been seen before it can alarm.
        lifetime: rows of absence after which a channel is forgotten.
        seed: of a forecaster's training.

    Attributes:
        n_rows_: rows taken.
        n_empty_rows_: of them rows without any value; their score is NaN.
        offset_: `decision_function` is ``score_samples - offset_``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(50, 1, size=(40, 8)); x[20:, 3] = 90
        >>> names = [f"rack=r1,node=n{i}" for i in range(8)]
        >>> found = HybridDetector("rack", entity="node").detect(Frame(np.arange(40.0), names, x))
        >>> [(alert.kind, alert.start, alert.subject) for alert in found]
        [('peer', 20.0, 'n3')]
    """

    def __init__(
        self,
        group_by: GroupBy = None,
        *,
        entity: GroupBy = None,
        peer: PeerDBSCAN = PeerDBSCAN(),  # noqa: B008  frozen
        reducer: GroupReducer = GroupReducer(),  # noqa: B008  frozen
        temporal: Temporal | None = WindowPCA(),  # noqa: B008  frozen
        threshold: SPOT = SPOT(),  # noqa: B008  frozen
        combine: Literal["any", "peer", "temporal"] = "any",
        absent: Literal["ignore", "alert"] = "ignore",
        min_presence: int = 4,
        lifetime: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.group_by = group_by
        self.entity = entity
        self.peer = peer
        self.reducer = reducer
        self.temporal = temporal
        self.threshold = threshold
        self.combine = combine
        self.absent = absent
        self.min_presence = min_presence
        self.lifetime = lifetime
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Self:
        """Forget everything, then take these rows; a forecaster is trained on them.

        Args:
            X: pandas or polars frame (index or column ``time``: time), `Frame`, or array; NaN is absence.
            y: ignored; a forecaster with a semi-supervised loss takes 0 and 1 for each row.

        Raises:
            ConfigError: a setting or a column cannot be used.
            TimeOrderError: the times do not increase.
        """
        frame = as_frame(X)
        engine = Engine(self._setup())
        train = getattr(self.temporal, "train", None)
        if train is not None:
            engine = Engine(self._setup(train(engine.reduced(frame), y, self.seed)))
        engine.run(frame)
        self._engine = engine
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Take the next rows; alerts are kept to oneself, see `detect`.

        Args:
            X: as in `fit`, with any columns.
            y: ignored.
        """
        self._running().run(self._frame(X))
        return self

    def detect(self, X: Any) -> list[Alert]:
        """Take the next rows; returns alerts in the order of time, when they begin and, with `end`, when they are over.

        Args:
            X: as in `fit`, with any columns.

        Raises:
            ConfigError: a column cannot be used.
            TimeOrderError: the rows do not come after those taken before.
        """
        return self._running().run(self._frame(X)).alerts

    def compress(self, policy: "Policy", X: Any) -> Self:
        """Put a policy to the trained forecaster; scores are those of the smaller network from the next row on.

        Args:
            policy: over the call sites of the network.
            X: rows as in `fit`, to calibrate on.

        Raises:
            ConfigError: no forecaster is trained, or the policy does not fit it.
        """
        fleet = self._running().series.get(_FLEET)
        if fleet is None or not isinstance(fleet.model, ForecasterModel):
            raise ConfigError("no forecaster to compress: set temporal=Forecaster(...) and call fit")
        fleet.model.compress(policy, Engine(self._setup()).reduced(as_frame(X)))
        return self

    def open_alerts(self) -> list[Alert]:
        """Alerts that last."""
        return self._running().tracker.open()

    def anomaly_scores(self, X: Any, level: Level = "time") -> Any:
        """Positive scores of rows that would come next, 1 is the threshold; the detector stays as it is.

        Args:
            X: as in `fit`.
            level: one score a row (``"time"``), or one for each group, entity or channel.

        Returns:
            a table of the kind of `X` with one column a name (`Frame` for anything but pandas); NaN where nothing was
            present.
        """
        if level not in _LEVELS:
            raise ConfigError(f"unknown level {level!r}; {did_you_mean(level, _LEVELS)}")
        engine = copy.deepcopy(self._running())
        frame = self._frame(X)
        engine.last_time = -np.inf
        found = engine.run(frame, level)
        pandas = sys.modules.get("pandas")
        if pandas is not None and isinstance(X, pandas.DataFrame):
            return pandas.DataFrame(found.scores, index=X.index, columns=found.names)
        return unchecked(frame.times, tuple(found.names), found.scores)

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Scores of rows that would come next, lower for what is abnormal, (n,)."""
        scores = self.anomaly_scores(X)
        return -np.asarray(scores.values if isinstance(scores, Frame) else scores.to_numpy())[:, 0]

    @property
    def offset_(self) -> float:
        """Score of the threshold in `score_samples`."""
        return -1.0

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """`score_samples` minus the threshold: negative for alarms."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for rows that alarm, else 1."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def score_one(self, x: Mapping[str, float], t: float | None = None) -> float:
        """Positive score of one row given as a mapping; the detector stays as it is (river's interface)."""
        return float(self.anomaly_scores(self._one(x, t)).values[0, 0])

    def learn_one(self, x: Mapping[str, float], t: float | None = None) -> Self:
        """Take one row given as a mapping."""
        return self.partial_fit(self._one(x, t))

    def groups_of_channels(self) -> dict[str, str]:
        """Group of each channel that is known."""
        return {name: group for group, name in self._running().layout.keys}

    @property
    def n_rows_(self) -> int:
        """Rows taken."""
        return self._running().rows_seen

    @property
    def n_empty_rows_(self) -> int:
        """Rows taken that held no value."""
        return self._running().empty_rows

    @property
    def last_time_(self) -> float:
        """Time of the last row taken; minus infinity before the first."""
        return self._running().last_time

    def state(self) -> State:
        """What a restart needs, beside the settings."""
        return self._running().state()

    def restore_state(self, state: State) -> Self:
        """Go on where `state` was taken, by a detector of the same settings."""
        engine = Engine(self._setup())
        engine.restore(state)
        self._engine = engine
        return self

    def cost(self, channels: int | None = None, groups: int | None = None, entities: int | None = None) -> Cost:
        """What one row costs.

        Args:
            channels: how many there are; those known when None.
            groups: of one size; those known, or one, when None.
            entities: of one size; those known when None.

        Raises:
            ConfigError: no number of channels is given and none is known.
        """
        engine = self._running()
        channels = len(engine.layout) if channels is None else channels
        if channels < 1:
            raise ConfigError(f"channels={channels}: give 1 or more, or take rows first")
        groups = max(1, len(engine.layout.groups)) if groups is None else groups
        return cost_of(self, channels, groups, engine.entities if entities is None else entities)

    def save(self, path: str | Path) -> None:
        """Write settings and state as one artifact; a crash leaves the old one or the new one.

        Raises:
            ArtifactError: it cannot be written.
            ConfigError: a stage of another make has no JSON form.
        """
        save_state(path, _KIND, {"config": to_json(self), "engine": self.state()}, identity(self))

    @classmethod
    def load(cls, path: str | Path, **functions: Any) -> Self:
        """Read what `save` wrote.

        Args:
            path: the artifact's folder.
            **functions: `group_by` and `entity` where they were functions, which no file can hold.

        Raises:
            ArtifactError: it is missing or damaged.
            ConfigError: a function is missing, or another one is given than the one that made the state.
        """
        state = load_state(path, _KIND)
        return cls(**from_json(state["config"], functions)).restore_state(state["engine"])

    def restore(self, path: str | Path) -> Self:
        """Go on from a saved state of a detector with the same settings.

        Raises:
            ArtifactError: it is missing or damaged.
            ConfigError: it is a state of other settings, such as another `group_by`.
        """
        return self.restore_state(load_state(path, _KIND, identity(self))["engine"])

    def _one(self, x: Mapping[str, float], t: float | None) -> Frame:
        time = max(self._running().last_time, -1.0) + 1 if t is None else t
        return unchecked(np.array([time]), tuple(x), np.array([list(x.values())], np.float64))

    def _frame(self, X: Any) -> Frame:
        return as_frame(X, max(self._running().last_time, -1.0) + 1)

    def _running(self) -> Engine:
        if not hasattr(self, "_engine"):
            self._engine = Engine(self._setup())
        return self._engine

    def _setup(self, temporal: Temporal | None = None) -> Setup:
        for name, known in (("combine", ("any", "peer", "temporal")), ("absent", ("ignore", "alert"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r}; {did_you_mean(str(getattr(self, name)), known)}")
        if self.min_presence < 1 or self.lifetime < 1:
            raise ConfigError(f"min_presence={self.min_presence}, lifetime={self.lifetime}: choose 1 or more")
        return Setup(
            self.group_by, self.entity, self.peer, self.reducer, temporal or self.temporal, self.threshold,
            self.combine, self.absent == "alert", self.min_presence, self.lifetime,
        )  # fmt: skip


def identity(detector: HybridDetector) -> dict[str, Any]:
    """Settings that a state belongs to."""
    return to_json(detector)
