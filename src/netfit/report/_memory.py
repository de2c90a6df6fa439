"""The page of `netfit memory plan`: the price, the step's memory before and after, and who keeps what."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure, pairs
from ._format import change, digits, seconds, size
from ._model import Facts, Note, Report, Section, Table

__all__ = ["memory_report"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Measured(_Part):
    """One measured step."""

    peak: int
    process_peak: int | None = None
    held: dict[str, int] = {}
    saved: int | None = None
    seconds: float
    timeline: tuple[tuple[float, float], ...] = ()


class Packed(_Part):
    """One tensor of which less is kept."""

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes: int
    kept_bytes: int


class Plan(_Part):
    """The plan of the run."""

    words: dict[str, str] = {}
    budget: int | None = None
    base: Measured
    after: Measured
    predicted_peak: int
    predicted_error: float
    error: float
    rows: tuple[Packed, ...] = ()


class MemoryResult(_Part):
    """The whole file."""

    model: str
    batch: int
    data: str | None = None
    plan: Plan
    arguments: dict[str, Any] = {}


def memory_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = MemoryResult.model_validate(result)
    p = r.plan
    verdict = f"A step of {r.batch} samples takes {size(p.after.peak)} instead of {size(p.base.peak)}"
    verdict += f", at a gradient error of {digits(p.error)}." if p.rows else ": nothing has to be compressed."
    sections = (_price(r), _tensors(p), _parts(p), _method(r))
    return Report(f"Memory of training {r.model}", verdict, tuple(s for s in sections if s.blocks))


def _price(r: MemoryResult) -> Section:
    p = r.plan
    ratio = p.after.peak / p.base.peak
    facts: dict[str, str | tuple[str, str]] = {
        "Peak": (size(p.after.peak), f"{change(p.base.peak, p.after.peak)} of {size(p.base.peak)}"),
        "Step": (seconds(p.after.seconds), change(p.base.seconds, p.after.seconds)),
        "Gradient error": (digits(p.error), f"predicted {digits(p.predicted_error)}"),
    }
    if p.budget is not None:
        facts["Budget"] = (size(p.budget), f"{100 * p.after.peak / p.budget:.0f} % used")

    def plot() -> str:
        series = {
            label: ([100 * t for t, _ in m.timeline], [(sum(m.held.values()) + b) / 1e6 for _, b in m.timeline])
            for label, m in (("as it is", p.base), ("planned", p.after))
        }
        return plots.lines(series, xlabel="part of the step's allocations, %", ylabel="memory, MB", steps=True)

    alt = f"Two curves over a training step; the planned one peaks at {100 * ratio:.0f} % of the other."
    drawing = figure("Memory during one step, forward pass to the left, backward pass to the right", alt, plot)
    blocks = (Facts(facts), drawing)
    if r.data is None:
        warning = Note("warning", "The batch was noise: the gradient error says nothing about real data (use --data).")
        return Section("The price", blocks=(*blocks, warning))
    return Section("The price", blocks=blocks)


def _tensors(p: Plan) -> Section:
    rows = tuple(
        (x.name, x.kind, " x ".join(map(str, x.shape)), p.words.get(x.name, p.words.get("*", "")), size(x.bytes),
         size(x.kept_bytes))
        for x in sorted(p.rows, key=lambda x: -x.bytes)
    )  # fmt: skip
    columns = ("saved by", "kind", "shape", "codec", "bytes", "kept")
    note = "Largest first; ReLU and pooling keep bits or nothing under every codec"
    return Section("What is kept of each tensor", blocks=(Table(columns, rows, "llllrr", note),) if rows else ())


def _parts(p: Plan) -> Section:
    names = (*p.base.held, "saved", "other")
    cells = {"as it is": _split(p.base), "planned": _split(p.after)}
    rows = tuple((name, *(size(c.get(name, 0)) for c in cells.values())) for name in names)
    return Section("What the peak is made of", blocks=(Table(("part", *cells), rows, "lrr"),))


def _split(m: Measured) -> dict[str, int]:
    saved = m.saved or 0
    return {**m.held, "saved": saved, "other": max(m.peak - sum(m.held.values()) - saved, 0)}


def _method(r: MemoryResult) -> Section:
    text = "Both steps were run in a process of their own with one thread; peaks are those of torch's allocator."
    seen = {
        "resident set, as it is": _size(r.plan.base.process_peak),
        "resident set, planned": _size(r.plan.after.process_peak),
        "predicted peak": size(r.plan.predicted_peak),
        **r.arguments,
    }
    return Section("How it was measured", text, (pairs(seen),))


def _size(value: int | None) -> str | None:
    return None if value is None else size(value)
