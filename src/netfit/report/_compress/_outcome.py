"""The first section: the numbers that matter and every reason to doubt them."""

from .._format import MISSING, change, count, digits, each, percent, points, seconds, size
from .._model import Block, Facts, Note, Section, Table
from ._schema import CompressResult

__all__ = ["accuracy_drop", "outcome"]


def outcome(r: CompressResult) -> Section:
    """Tiles, warnings, and original against compressed."""
    facts, table = _facts(r), _before_after(r)
    return Section("Outcome", "", (*([facts] if facts.values else []), *_warnings(r), *([table] if table.rows else [])))


def accuracy_drop(r: CompressResult) -> float | None:
    """Accuracy lost between the original and what will be deployed."""
    after = _final_accuracy(r)
    return None if after is None or r.base.accuracy is None else r.base.accuracy - after


def _final_accuracy(r: CompressResult) -> float | None:
    """Of the deployed file if it was tested, else of the model in torch."""
    return r.final.accuracy_deployed if r.final.accuracy_deployed is not None else r.final.accuracy


def _warnings(r: CompressResult) -> list[Block]:
    notes: list[Block] = []
    if r.final.met is False:
        asked = f"The goal was {_goal(r)}. " if _goal(r) else ""
        notes.append(Note("warning", f"{asked}This is the nearest that was found; it was kept."))
    if r.final.noisy:
        text = "The machine was busy: the interval of the latency is wider than ±3 %. Measure again when it is idle."
        notes.append(Note("warning", text))
    if n := len(r.substituted or ()):
        what = "1 layer runs" if n == 1 else f"{n} layers run"
        text = f"{what} at another precision than the policy asked for; see “How it was measured”."
        notes.append(Note("warning", text))
    return notes


def _facts(r: CompressResult) -> Facts:
    values: dict[str, str | tuple[str, str]] = {}
    if r.final.ratio is not None:
        known = r.final.ratio_lo is not None and r.final.ratio_hi is not None
        interval = f"{each(digits, r.final.ratio_lo)} to {each(digits, r.final.ratio_hi)}" if known else ""
        goal = f"goal {r.goal.latency:g}" if r.goal.latency is not None else ""
        values["Latency, original = 1"] = (
            digits(r.final.ratio),
            ", ".join(t for t in (interval, goal) if t) or "interval not recorded",
        )
    if (accuracy := _final_accuracy(r)) is not None:
        values["Accuracy"] = (percent(accuracy), f"original {each(percent, r.base.accuracy)}")
    for label, form, before, after in (
        ("Multiply–adds", count, r.base.macs, r.final.macs),
        ("Parameters", count, r.base.params, r.final.params),
        ("File size", size, r.base.bytes, r.final.bytes),
    ):
        if after is not None:
            values[label] = (each(form, after), f"original {each(form, before)}")
    return Facts(values)


def _before_after(r: CompressResult) -> Table:
    b, f = r.base, r.final
    lines = (
        ("Accuracy, in torch", percent, b.accuracy, f.accuracy),
        ("Accuracy, deployed", percent, b.accuracy, f.accuracy_deployed),
        ("Latency", seconds, b.latency_s, f.latency_s),
        ("Multiply–adds", count, b.macs, f.macs),
        ("Parameters", count, b.params, f.params),
        ("File size", size, b.bytes, f.bytes),
        ("Peak memory", size, b.peak_bytes, f.peak_bytes),
    )
    rows = tuple(
        (name, each(form, x), each(form, y), _difference(x, y) if form is percent else change(x, y))
        for name, form, x, y in lines
        if y is not None
    )
    return Table(("", "original", "compressed", "change"), rows, "lrrr")


def _difference(before: float | None, after: float | None) -> str:
    return MISSING if before is None or after is None else each(points, after - before)


def _goal(r: CompressResult) -> str:
    latency = f"a latency of at most {r.goal.latency:g} of the original's" if r.goal.latency is not None else ""
    drop = f"at most {100 * r.goal.max_drop:g} points lost" if r.goal.max_drop is not None else ""
    return " with ".join(g for g in (latency, drop) if g)
