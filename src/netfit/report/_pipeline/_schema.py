"""What `result.json` of a pipeline comparison may hold. Everything is optional: a report shows what is there."""

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Comparison", "Drawing", "PipelineResult", "Row"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Row(_Part):
    """One schedule on one network."""

    network: str = "?"
    schedule: str = "?"
    formula: float | None = None
    table: float | None = None
    simulated: float | None = None
    rank_formula: int | None = None
    rank_table: int | None = None
    rank_simulated: int | None = None
    bubble: float | None = None
    exposed_s: float | None = None
    peak_bytes: float | None = None
    break_even: float | None = None


class Sweep(_Part):
    """Seconds of every schedule at each bandwidth."""

    bytes_per_s: tuple[float, ...] = ()
    seconds: dict[str, tuple[float, ...]] = {}


class Flip(_Part):
    """From this bandwidth on, this schedule is the fastest."""

    from_bytes_per_s: float
    schedule: str


class Comparison(_Part):
    """All schedules at one number of microbatches."""

    microbatches: int = 0
    rows: tuple[Row, ...] = ()
    sweep: dict[str, Sweep] = {}
    flips: dict[str, tuple[Flip, ...]] = {}
    verdicts: tuple[str, ...] = ()


class Drawing(_Part):
    """One simulated step: bars (device, kind, stage, microbatch, start, end) and activations over time."""

    schedule: str = "?"
    devices: int = 0
    makespan_s: float = 0.0
    bars: tuple[tuple[int, str, int, int, float, float], ...] = ()
    memory: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()


class PipelineResult(_Part):
    """The whole file."""

    model: str | None = None
    devices: int | None = None
    costs: str | None = None
    comparisons: tuple[Comparison, ...] = ()
    timelines: tuple[Drawing, ...] = ()
    notes: tuple[str, ...] = ()
    invocation: str | None = None
    versions: dict[str, Any] = {}
