"""The pages of `netfit detect run` (a card for each alert) and `netfit detect eval` (metrics beside random scores)."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure
from ._format import count, percent
from ._model import Block, Facts, Note, Report, Section, Table

__all__ = ["detect_eval_report", "detect_report"]

_DATES_FROM = 1e9  # seconds; smaller times are not dates
_WORDS = {
    "peer": "differs from its peers", "zero": "at zero, unlike its peers", "absent": "has vanished", "new": "is new",
    "temporal": "differs from its past", "shift": "keeps off its peers for long",
}  # fmt: skip


class Channel(BaseModel):
    """What one channel adds to an alert."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    share: float
    observed: float | None
    expected: float | None
    z: float | None


class Rows(BaseModel):
    """The worst channel among its peers."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    time: tuple[float, ...]
    observed: tuple[float | None, ...]
    low: tuple[float | None, ...]
    median: tuple[float | None, ...]
    high: tuple[float | None, ...]


class Card(BaseModel):
    """One alert."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    start: float
    end: float | None
    kind: str
    subject: str
    groups: tuple[str, ...]
    channels: tuple[Channel, ...]
    score: float
    rows: Rows


class DetectResult(BaseModel):
    """The whole file of a run."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    rows: int
    empty_rows: int
    alerts: dict[str, int]
    open: int
    cards: tuple[Card, ...]


class EvalResult(BaseModel):
    """The whole file of an evaluation."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    rows: int
    positives: float
    metrics: tuple[dict[str, str | float], ...]


def detect_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = DetectResult.model_validate(result)
    raised = ", ".join(f"{n} {kind}" for kind, n in r.alerts.items()) or "none"
    facts = Facts({"Rows": count(r.rows), "Empty rows": count(r.empty_rows), "Alerts": raised, "Open": str(r.open)})
    sections = [Section("In short", blocks=(facts, _overview(r.cards)))]
    sections += [_card(card) for card in r.cards]
    total = sum(r.alerts.values())
    return Report("Anomalies", f"{count(total)} alerts in {count(r.rows)} rows; {r.open} still open.", tuple(sections))


def detect_eval_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = EvalResult.model_validate(result)
    names = [name for name in r.metrics[0] if name != "name"]
    rows = tuple(
        (str(row["name"]), *(f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in names))
        for row in r.metrics
    )
    grid = Table(("", *(name.replace("_", " ") for name in names)), rows, "l" + "r" * len(names))
    blocks: list[Block] = [Facts({"Rows": count(r.rows), "Abnormal": percent(r.positives)}), grid]
    if "point_adjusted_f1" in names:
        blocks.append(Note("info", "Point adjustment counts a segment as found after one hit: look at the control."))
    first = r.metrics[0]["average_precision"]
    return Report(
        "Scores against labels", f"Average precision {first:.3f}.", (Section("Metrics", blocks=tuple(blocks)),)
    )


def _overview(cards: tuple[Card, ...]) -> Block:
    rows = tuple(
        (str(c.id), _moment(c.start), "open" if c.end is None else _moment(c.end), c.subject or "fleet",
         _WORDS.get(c.kind, c.kind), c.channels[0].name if c.channels else "", f"{c.score:.2f}")
        for c in sorted(cards, key=lambda c: c.start)
    )  # fmt: skip
    columns = ("alert", "since", "until", "subject", "what", "worst channel", "score")
    return Table(columns, rows, "llllllr", note="Scores above 1 are alarms.")


def _card(card: Card) -> Section:
    title = f"Alert {card.id}: {card.subject or 'the fleet'} {_WORDS.get(card.kind, card.kind)}"
    rows = tuple(
        (c.name, percent(c.share), _number(c.observed), _number(c.expected), _number(c.z)) for c in card.channels[:8]
    )
    grid = Table(("channel", "share", "observed", "expected", "usual distances"), rows, "lrrrr")
    since = f"Since {_moment(card.start)}, {'open' if card.end is None else 'until ' + _moment(card.end)}."
    blocks: list[Block] = [Note("info", since), grid]
    if card.rows.time and card.channels:
        blocks.append(_drawing(card))
    return Section(title, blocks=tuple(blocks))


def _drawing(card: Card) -> Block:
    rows, name = card.rows, card.channels[0].name

    def plot() -> str:
        time = [t - card.start for t in rows.time]
        peers = (time, *([_plain(v) for v in column] for column in (rows.median, rows.low, rows.high)))
        series = {"peers": peers, "this one": (time, [_plain(v) for v in rows.observed])}
        return plots.lines(series, xlabel="seconds since the alert", ylabel=name)

    return figure("The worst channel, and range and median of its peers", f"{name} beside its peers over time.", plot)


def _plain(value: float | None) -> float:
    return float("nan") if value is None else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _moment(seconds: float) -> str:
    if seconds < _DATES_FROM:
        return f"{seconds:g}"
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
