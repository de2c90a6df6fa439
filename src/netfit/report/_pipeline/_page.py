"""The sections and the verdict."""

from typing import Any

from .. import plots
from .._blocks import figure, pairs
from .._format import MISSING, each, percent, seconds, size, whole
from .._model import Block, Code, Note, Report, Section, Table
from ._schema import Comparison, Drawing, PipelineResult

__all__ = ["pipeline_report"]

_KINDS = {"F": "forward", "X": "backward", "B": "input gradient", "W": "weight gradient", "P": "both together"}
_MOST_BARS = 4000  # more are no picture, only bytes
_COLUMNS = (
    "schedule", "formula", "rank", "table", "rank", "simulated", "rank", "bubble", "exposed", "peak", "ahead from",
)  # fmt: skip


def pipeline_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``; sections without data are left out.

    Raises:
        pydantic.ValidationError: a value has the wrong type.
    """
    r = PipelineResult.model_validate(result)
    parts = [*map(_comparison, r.comparisons), _timelines(r.timelines), _method(r)]
    title = f"Pipeline schedules of {r.model or 'equal stages'}" + (f" on {r.devices} devices" if r.devices else "")
    said = " ".join(f"{c.microbatches} microbatches, {v}." for c in r.comparisons for v in c.verdicts)
    return Report(title, said, tuple(section for section in parts if section.blocks))


def _comparison(c: Comparison) -> Section:
    blocks: list[Block] = []
    for name, sweep in c.sweep.items():
        flips = c.flips.get(name, ())
        series = {label: (sweep.bytes_per_s, times) for label, times in sweep.seconds.items()}
        caption = f"{name}: who leads as its bandwidth changes"
        alt = "; ".join(f"{f.schedule} from {_rate(f.from_bytes_per_s)}" for f in flips)
        marks = [f.from_bytes_per_s for f in flips[1:]]
        if series and sweep.bytes_per_s:
            draw = lambda series=series, marks=marks: plots.race(series, flips=marks, xlabel="bytes/s")  # noqa: E731
            blocks.append(figure(caption, alt or "no change of the lead", draw))
    for name in dict.fromkeys(row.network for row in c.rows):
        blocks.append(_table(c, name))
    return Section(f"{c.microbatches} microbatches", "", tuple(blocks))


def _table(c: Comparison, network: str) -> Table:
    rows = sorted((r for r in c.rows if r.network == network), key=lambda r: r.simulated or 0.0)
    cells = tuple(
        (
            r.schedule, each(seconds, r.formula), whole(r.rank_formula), each(seconds, r.table), whole(r.rank_table),
            each(seconds, r.simulated), whole(r.rank_simulated), each(percent, r.bubble), each(seconds, r.exposed_s),
            each(size, r.peak_bytes), MISSING if r.break_even is None else _rate(r.break_even),
        )
        for r in rows
    )  # fmt: skip
    note = f"{network}; “ahead from”: bandwidth at which a schedule overtakes {c.rows[0].schedule} for good"
    return Table(_COLUMNS, cells, "l" + "r" * 10, note)


def _timelines(drawings: tuple[Drawing, ...]) -> Section:
    blocks: list[Block] = []
    for d in drawings:
        if len(d.bars) > _MOST_BARS:
            blocks.append(Note("info", f"{d.schedule}: {len(d.bars)} operations are too many to draw; write a trace."))
            continue
        bars = [(device, kind, start, end) for device, kind, _, _, start, end in d.bars]
        caption = f"{d.schedule}: {seconds(d.makespan_s)} a step"
        alt = f"{len(d.bars)} operations on {d.devices} devices"
        draw = lambda bars=bars, d=d: plots.timeline(bars, _KINDS, rows=d.devices, xlabel="seconds")  # noqa: E731
        blocks.append(figure(caption, alt, draw))
        blocks.append(_memory(d))
    return Section("The fastest schedules", "", tuple(blocks))


def _memory(d: Drawing) -> Block:
    peak = max((max(stored, default=0.0) for _, stored in d.memory), default=0.0)
    # Equal stages count microbatches, networks bytes: nobody keeps a million microbatches.
    scale, unit = (1e9, "GB of activations") if peak > 1e6 else (1.0, "activations, microbatches")
    curves = {
        f"device {i}": (when, tuple(value / scale for value in stored))
        for i, (when, stored) in enumerate(d.memory)
        if i in (0, d.devices // 2, d.devices - 1)
    }
    caption, alt = f"{d.schedule}: activations kept", f"peak {peak / scale:g} {unit}"
    return figure(caption, alt, lambda: plots.lines(curves, xlabel="seconds", ylabel=unit, steps=True))


def _method(r: PipelineResult) -> Section:
    facts = {"Costs": r.costs, "Devices": r.devices, "netfit": r.versions.get("netfit")}
    blocks: list[Block] = [Note("info", note) for note in r.notes]
    blocks.append(pairs({k: v for k, v in facts.items() if v}))
    if r.invocation:
        blocks.append(Code(r.invocation))
    return Section("How it was computed", "", tuple(blocks))


def _rate(value: float) -> str:
    return "always" if value == 0 else f"{size(value)}/s"
