"""What `result.json` of a compress run may hold. Everything is optional: a report shows what is there."""

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["CompressResult", "LayerRow", "Trial"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Goal(_Part):
    """Latency as a part of the original's, and the accuracy that may be lost (0.01 = one point)."""

    latency: float | None = None
    max_drop: float | None = None


class Measures(_Part):
    """Numbers of one network; the last rows only of the compressed one."""

    accuracy: float | None = None
    accuracy_deployed: float | None = None
    latency_s: float | None = None
    macs: float | None = None
    params: float | None = None
    bytes: float | None = None
    peak_bytes: float | None = None
    ratio: float | None = None
    ratio_lo: float | None = None
    ratio_hi: float | None = None
    noisy: bool | None = None
    met: bool | None = None


class Yardstick(_Part):
    """The run time of the original network that every ratio is relative to."""

    runtime: str | None = None
    version: str | None = None
    threads: int | None = None
    batch: int | None = None
    latency_s: float | None = None
    candidates: dict[str, float | None] = {}


class LayerRow(_Part):
    """One layer before and after: channels, precision asked and executed, MACs, time."""

    name: str = "?"
    kind: str = ""
    channels: int | None = None
    kept: int | None = None
    asked: str | None = None
    executed: str | None = None
    macs_before: float | None = None
    macs_after: float | None = None
    time_before_s: float | None = None
    time_after_s: float | None = None


class Substituted(_Part):
    """A layer that the runtime ran at another precision than the policy asked for."""

    name: str = "?"
    asked: str = "?"
    executed: str = "?"
    why: str = ""


class Trial(_Part):
    """One policy of the search; the score is its accuracy before retraining."""

    number: int
    origin: str = "?"
    ratio: float | None = None
    score: float | None = None
    feasible: bool | None = None


class Epoch(_Part):
    """One epoch of retraining."""

    epoch: int
    loss: float | None = None
    accuracy: float | None = None


class Sensitivity(_Part):
    """What happens when one group keeps this fraction of its channels: the output's divergence, or the score left."""

    group: str = "?"
    kept_fraction: float
    kl: float | None = None
    score: float | None = None


class Frozen(_Part):
    """A group that was not pruned, and why."""

    group: str = "?"
    reason: str = ""


class SlowLayer(_Part):
    """A layer far from the rate of the best one."""

    name: str = "?"
    time_s: float | None = None
    rate: float | None = None
    reason: str = ""


class Steps(_Part):
    """Channel counts that a group could keep."""

    group: str = "?"
    channels: int | None = None
    useful: tuple[int, ...] = ()


class Why(_Part):
    """Where the time of the deployed file goes."""

    share: dict[str, float | None] = {}
    layers: tuple[SlowLayer, ...] = ()
    steps: tuple[Steps, ...] = ()


class Predictor(_Part):
    """How good the predicted costs were, and how many measurements they saved."""

    skipped: int | None = None
    guessed: int | None = None
    mape: float | None = None
    spearman: float | None = None


class Elsewhere(_Part):
    """One policy and its cost on every target."""

    number: int | None = None
    score: float | None = None
    ratio: dict[str, float | None] = {}


class Also(_Part):
    """The same search for several targets."""

    targets: tuple[str, ...] = ()
    score: dict[str, dict[str, float | None]] = {}
    policies: dict[str, tuple[Elsewhere, ...]] = {}
    diagonal_best: tuple[str, ...] = ()


class Peer(_Part):
    """Another tool's network after the same retraining."""

    name: str = "?"
    ratio: float | None = None
    accuracy: float | None = None


class CompressResult(_Part):
    """The whole file."""

    model: str | None = None
    data: str | None = None
    goal: Goal = Goal()
    base: Measures = Measures()
    final: Measures = Measures()
    yardstick: Yardstick | None = None
    layers: tuple[LayerRow, ...] = ()
    substituted: tuple[Substituted, ...] | None = None
    why: Why | None = None
    predictor: Predictor | None = None
    also: Also | None = None
    peers: tuple[Peer, ...] = ()
    trials: tuple[Trial, ...] = ()
    front: tuple[int, ...] = ()
    chosen: int | None = None
    history: tuple[Epoch, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    images: dict[str, int | None] | None = None
    frozen_groups: tuple[Frozen, ...] = ()
    commands: tuple[str, ...] = ()
    versions: dict[str, Any] = {}
    host: dict[str, Any] | str = {}
    seed: int | None = None
    command: str | None = None
