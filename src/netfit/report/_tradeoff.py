"""The page of `netfit tradeoff`: what each way to compress a network costs, and what that says."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure, pairs
from ._format import MISSING, count, digits, each, percent, points, seconds, size
from ._model import Block, Code, Report, Section, Table

__all__ = ["tradeoff_report"]

_SCALED = {"file": 1e6}  # a cost's unit on an axis
_DRAWN = 0.1  # accuracy below the best that is still drawn: one ruined network would flatten all others
_LABELS = {"latency": "latency / fastest fp32 runtime", "file": "file, MB"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Elsewhere(_Part):
    """Cost on a further target."""

    runs: bool
    why: str | None = None
    time_s: float | None = None
    cycles: float | None = None
    ratio: float | None = None


class Point(_Part):
    """One way to compress the network; all but the first three are missing where it failed."""

    name: str
    group: str
    failed: str | None = None
    accuracy: float | None = None
    ratio: float | None = None
    ratio_lo: float | None = None
    ratio_hi: float | None = None
    latency_s: float | None = None
    noisy: bool | None = None
    macs: float | None = None
    file_bytes: float | None = None
    weight_bytes: float | None = None
    act_bytes: float | None = None
    added_bytes: float | None = None
    asked: dict[str, int] = {}
    executed: dict[str, int] = {}
    costs: dict[str, float | None] = {}
    on: dict[str, Elsewhere] = {}
    run: str | None = None


class Base(_Part):
    """The uncompressed network."""

    accuracy: float
    macs: float
    weight_bytes: float
    act_bytes: float
    on: dict[str, Elsewhere] = {}


class Finding(_Part):
    """A sentence and what it is about."""

    about: str
    text: str


class TradeoffResult(_Part):
    """The whole file."""

    model: str
    data: str
    target: str
    base: Base
    points: tuple[Point, ...]
    fronts: dict[str, tuple[str, ...]]
    findings: tuple[Finding, ...]
    yardstick: dict[str, Any] = {}
    retraining: dict[str, Any] = {}
    images: dict[str, int] = {}
    arguments: dict[str, Any] = {}
    seed: int | None = None


def tradeoff_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = TradeoffResult.model_validate(result)
    verdict = next((f.text for f in r.findings if f.about == "verdict"), r.findings[0].text if r.findings else "")
    texts: dict[str, list[str]] = {}
    for f in r.findings:
        texts.setdefault(f.about, []).append(f.text)
    rows = tuple((about, " ".join(sentences)) for about, sentences in texts.items())
    said = Section(
        "Findings", "Every sentence is computed from the figures below.", (Table(("about", "finding"), rows),)
    )
    drawn = tuple(_figure(r, axis) for axis in r.fronts)
    sections = (
        said,
        Section("Accuracy against cost", blocks=drawn),
        _points(r),
        _elsewhere(r),
        _refused(r),
        _method(r),
    )
    return Report(f"{r.model} on {r.data}: what pays where", verdict, tuple(s for s in sections if s.blocks))


def _figure(r: TradeoffResult, axis: str) -> Block:
    label = _LABELS.get(axis, f"cycles on {axis} / original")
    done = [p for p in r.points if p.accuracy is not None]
    best = max((p.accuracy or 0.0 for p in done), default=0.0)
    groups: dict[str, list[tuple[float, float]]] = {p.group: [] for p in done}  # the same colours in every drawing
    at: dict[str, tuple[float, float]] = {}
    low = []
    for p in done:
        cost, accuracy = p.costs.get(axis), p.accuracy or 0.0
        if cost is not None and accuracy < best - _DRAWN:
            low.append(f"{p.name} ({percent(accuracy)})")
        elif cost is not None:
            at[p.name] = (cost / _SCALED.get(axis, 1.0), 100 * accuracy)
            groups[p.group].append(at[p.name])
    front = [at[name] for name in r.fronts[axis] if name in at]
    absent = len(done) - len(at) - len(low)
    caption = f"Test accuracy against {label}. On the front: {', '.join(r.fronts[axis]) or 'none'}"
    caption += f". Too low to draw: {', '.join(low)}" if low else ""
    caption += f". {absent} of {len(done)} networks do not run there as trained" if absent else ""
    alt = "; ".join(f"{name}: {digits(x)}, {y:.2f} %" for name, (x, y) in at.items())

    def plot() -> str:
        return plots.scatter_pareto(groups, front=front, xlabel=label, ylabel="test accuracy, %")

    return figure(caption, alt, plot)


def _points(r: TradeoffResult) -> Section:
    columns = ("point", "accuracy", "change", "latency", "interval", "time", "MACs", "file", "weights", "activations",
               "process")  # fmt: skip
    base = ("original", percent(r.base.accuracy), "", "", "", each(seconds, r.yardstick.get("latency_s")),
            count(r.base.macs), "", size(r.base.weight_bytes), size(r.base.act_bytes), "")  # fmt: skip
    rows, precisions = [base], []
    for p in (p for p in r.points if p.failed is None):
        known = p.ratio_lo is not None and p.ratio_hi is not None
        between = f"{each(digits, p.ratio_lo)} to {each(digits, p.ratio_hi)}" if known else MISSING
        rows.append(
            (p.name, each(percent, p.accuracy), _change(p, r.base), each(digits, p.ratio),
             between + (", noisy" if p.noisy else ""), each(seconds, p.latency_s), each(count, p.macs),
             each(size, p.file_bytes), each(size, p.weight_bytes), each(size, p.act_bytes), each(size, p.added_bytes))
        )  # fmt: skip
        precisions.append((p.name, _listed(p.asked), _listed(p.executed)))
    text = (
        "Latency is that of the deployed file, as a ratio to the uncompressed network in its fastest fp32 runtime. "
        "Weights are counted at the bits asked for, activations as the most that is alive at one time; process is what "
        "loading and running the file added to a fresh process."
    )
    ran = Table(("point", "asked", "executed"), tuple(precisions), note="Layers and joins by precision, as read back")
    return Section("Every point", text, (Table(columns, tuple(rows), "l" + "r" * 10), ran))


def _change(p: Point, base: Base) -> str:
    return MISSING if p.accuracy is None else points(p.accuracy - base.accuracy)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {precision}" for precision, n in sorted(counts.items())) or MISSING


def _elsewhere(r: TradeoffResult) -> Section:
    names = tuple(r.base.on)
    rows = [("original", *(each(count, _cost(r.base.on[name])) for name in names))]
    for p in (p for p in r.points if p.failed is None):
        rows.append((p.name, *(_there(p.on[name]) if name in p.on else MISSING for name in names)))
    table = Table(("point", *names), tuple(rows), "l" + "r" * len(names))
    text = "Cycles, or seconds where a target has no clock. In brackets: of the structure, whose precision cannot run."
    return Section("On other targets", text, (table,) if names else ())


def _cost(cost: Elsewhere) -> float | None:
    return cost.time_s if cost.cycles is None else cost.cycles


def _there(cost: Elsewhere) -> str:
    text = f"{each(count, _cost(cost))} (x {each(digits, cost.ratio)})"
    return text if cost.runs else f"[{text}]"


def _refused(r: TradeoffResult) -> Section:
    rows = tuple((p.name, p.failed) for p in r.points if p.failed is not None)
    return Section("What could not be done", blocks=(Table(("point", "why"), rows),) if rows else ())


def _method(r: TradeoffResult) -> Section:
    facts = {f"yardstick, {k}": v for k, v in r.yardstick.items()} | {
        f"retraining, {k}": v for k, v in r.retraining.items()
    }
    facts |= {f"images, {k}": v for k, v in r.images.items()}
    folder = (
        "Each point is a complete job: netfit report RUN/points/NAME shows it, RUN/points/NAME/model is its network."
    )
    command = f"netfit tradeoff {r.model} --data {r.data} --target {r.target}"
    blocks = (pairs(facts), Code(command + (f" --seed {r.seed}" if r.seed is not None else "")))
    return Section("How it was measured", folder, blocks)
