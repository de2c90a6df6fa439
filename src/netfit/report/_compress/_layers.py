"""What became of each layer, and which groups of layers mind being pruned."""

from .. import plots
from .._blocks import figure
from .._format import MISSING, change, count, digits, each, percent, seconds, whole
from .._model import Block, Section, Table
from ._schema import CompressResult, LayerRow

__all__ = ["layers", "sensitivity"]

_MAX_DRAWN = 40  # rows of one drawing; the table below it has them all


def layers(r: CompressResult) -> Section:
    """The policy, the time before and after, and the table of both."""
    if not r.layers:
        return Section("Layers")
    shown = _dearest(r.layers)
    part = "" if len(shown) == len(r.layers) else f", the {len(shown)} most expensive of {len(r.layers)}"
    blocks = (_policy(shown, part), _times(shown, part), _table(r.layers))
    return Section("Layers", "", tuple(b for b in blocks if b))


def sensitivity(r: CompressResult) -> Section:
    """Divergence of the output by group and kept fraction; groups that were left alone, with the reason."""
    blocks = []
    if r.sensitivity:
        fractions = sorted({s.kept_fraction for s in r.sensitivity}, reverse=True)
        scored = all(s.kl is None for s in r.sensitivity)
        cells = {(s.group, s.kept_fraction): s.score if scored else s.kl for s in r.sensitivity}
        rows = tuple(
            (group, *(each(percent if scored else digits, cells.get((group, f))) for f in fractions))
            for group in dict.fromkeys(s.group for s in r.sensitivity)
        )
        columns = ("group", *(f"{100 * f:g} % kept" for f in fractions))
        what = "Score of the network" if scored else "Change of the output (KL divergence)"
        note = f"{what} when only this group is pruned"
        blocks.append(Table(columns, rows, "l" + "r" * len(fractions), note))
    if r.frozen_groups:
        rows = tuple((f.group, f.reason or MISSING) for f in r.frozen_groups)
        blocks.append(Table(("group", "reason"), rows, note="Groups left as they are"))
    text = "Layers whose channels depend on each other are pruned together, as one group."
    return Section("Sensitivity", text, tuple(blocks))


def _dearest(rows: tuple[LayerRow, ...]) -> tuple[LayerRow, ...]:
    """The most expensive layers, in the network's order."""

    def cost(i: int) -> tuple[float, float]:
        return (rows[i].time_before_s or 0.0, rows[i].macs_before or 0.0)

    kept = sorted(range(len(rows)), key=cost, reverse=True)[:_MAX_DRAWN]
    return tuple(rows[i] for i in sorted(kept))


def _policy(rows: tuple[LayerRow, ...], part: str) -> Block | None:
    strip = [
        (x.name, x.channels, x.channels if x.kept is None else x.kept, x.executed or x.asked or "?")
        for x in rows
        if x.channels
    ]
    if not strip:
        return None
    alt = "; ".join(f"{name}: {kept} of {channels} channels, {bits}" for name, channels, kept, bits in strip)
    return figure(f"Channels kept and precision executed{part}", alt, lambda: plots.policy_strip(strip))


def _times(rows: tuple[LayerRow, ...], part: str) -> Block | None:
    before, after = [x.time_before_s or 0.0 for x in rows], [x.time_after_s or 0.0 for x in rows]
    largest = max(before + after)
    if not largest:
        return None
    unit, scale = ("ms", 1e3) if largest >= 1e-3 else ("µs", 1e6)
    series = {"original": [t * scale for t in before], "compressed": [t * scale for t in after]}
    alt = "; ".join(f"{x.name}: {each(seconds, x.time_before_s)}, then {each(seconds, x.time_after_s)}" for x in rows)
    names = [x.name for x in rows]
    return figure(f"Measured time of each layer{part}", alt, lambda: plots.bars_grouped(names, series, xlabel=unit))


def _table(rows: tuple[LayerRow, ...]) -> Table:
    columns = ("layer", "kind", "kept", "asked", "executed", "MACs", "after", "time", "after", "change")
    cells = tuple(
        (
            x.name,
            x.kind or MISSING,
            f"{whole(x.kept)}/{whole(x.channels)}",
            x.asked or MISSING,
            x.executed or MISSING,
            each(count, x.macs_before),
            each(count, x.macs_after),
            each(seconds, x.time_before_s),
            each(seconds, x.time_after_s),
            change(x.time_before_s, x.time_after_s),
        )
        for x in rows
    )
    return Table(columns, cells, "llrllrrrrr", "Every layer")
