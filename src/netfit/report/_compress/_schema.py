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
    """Divergence of the output when one group keeps this fraction of its channels."""

    group: str = "?"
    kept_fraction: float
    kl: float | None = None


class Frozen(_Part):
    """A group that was not pruned, and why."""

    group: str = "?"
    reason: str = ""


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
