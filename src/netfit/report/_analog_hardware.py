"""The pages of `netfit analog order` and `netfit analog program`: what an array or a chip costs, and what mends it."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure, pairs
from ._format import count, digits, percent, points
from ._model import Block, Facts, Note, Report, Section, Table

__all__ = ["analog_hardware_report"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class OrderResult(_Part):
    """The file of ``netfit analog order``."""

    task: Literal["order"]
    digital: float
    unordered: float
    natural: float
    random: tuple[float, ...]
    balanced: float
    mac: dict[str, Any] = {}
    judged: int
    arguments: dict[str, Any] = {}


class ProgramResult(_Part):
    """The file of ``netfit analog program``."""

    task: Literal["program"]
    digital: float
    times: tuple[float, ...]
    plain: tuple[tuple[float, ...], ...]
    compensated: tuple[tuple[float, ...], ...]
    errors: dict[str, tuple[float, ...]] = {}
    crossbar: dict[str, Any] = {}
    judged: int
    arguments: dict[str, Any] = {}


def analog_hardware_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    if result.get("task") == "order":
        return _order(OrderResult.model_validate(result))
    return _program(ProgramResult.model_validate(result))


def _name(arguments: dict[str, Any]) -> str:
    return str(arguments.get("model", "a network"))


def _settings(arguments: dict[str, Any], own: dict[str, Any], judged: int) -> Section:
    kept = {k: v for k, v in arguments.items() if k not in ("mac", "crossbar") and v is not None}
    blocks = (pairs(own), pairs(kept | {"judged on": f"{count(judged)} samples"}))
    return Section("How it was measured", blocks=blocks)


def _order(r: OrderResult) -> Report:
    lost, left = r.natural - r.unordered, r.balanced - r.unordered
    verdict = f"Adding up in the order of the rows costs {points(lost)} against a model that saturates at the end; "
    verdict += f"the balanced order leaves {points(left)}."
    middle = statistics.median(r.random)
    scores = {
        "digital": r.digital, "saturating at the end": r.unordered, "rows as they stand": r.natural,
        "random order, median": middle, "balanced order": r.balanced,
    }  # fmt: skip
    rows = tuple((name, percent(a), points(a - r.digital)) for name, a in scores.items())
    spread = f"Random orders reach {percent(min(r.random))} to {percent(max(r.random))}"
    blocks: list[Block] = [
        Facts({"Balanced": percent(r.balanced), "As they stand": percent(r.natural), "Digital": percent(r.digital)}),
        Table(("sums", "accuracy", "to digital"), rows, "lrr", note=spread),
        figure(
            "Accuracy by the order of the rows",
            "Bar chart: " + ", ".join(f"{name} {percent(a)}" for name, a in scores.items()),
            lambda: plots.bars_grouped(list(scores), {"accuracy": list(scores.values())}, xlabel="accuracy"),
        ),
    ]
    if lost > -0.005:
        note = (
            "Here the order hardly matters: few partial sums leave the range. A higher gain or longer sums change that."
        )
        blocks.append(Note("info", note))
    sections = (
        Section("What the order of additions does", blocks=tuple(blocks)),
        _settings(r.arguments, r.mac, r.judged),
    )
    return Report(f"{_name(r.arguments)} on an array whose sums saturate", verdict, sections)


def _program(r: ProgramResult) -> Report:
    last = len(r.times) - 1
    plain, mended = ([_mean(chips, i) for i in range(len(r.times))] for chips in (r.plain, r.compensated))
    verdict = f"{_age(r.times[last])} after programming {percent(plain[last])} are right, {percent(mended[last])} with "
    verdict += f"drift compensated; {percent(r.digital)} without crossbars."
    facts = Facts(
        {"Digital": percent(r.digital), "Fresh": percent(plain[0]), _age(r.times[last]): percent(mended[last])}
    )
    rows = tuple(
        (_age(t), *(f"{percent(_mean(chips, i))} ({_range(chips, i)})" for chips in (r.plain, r.compensated)))
        for i, t in enumerate(r.times)
    )
    note = f"Mean of {len(r.plain)} chips and their range"
    blocks: list[Block] = [facts, Table(("after", "accuracy", "drift compensated"), rows, "lrr", note=note)]
    if len(r.times) > 1:
        blocks.append(figure("Accuracy as the chips age; bands are the range of the chips", _alt(r), _curves(r)))
    errors = tuple((name, *(digits(e) for e in of)) for name, of in r.errors.items())
    head = ("layer", *(_age(t) for t in r.times))
    layers = Table(head, errors, "l" + "r" * len(r.times), note="Root mean square error over the largest weight")
    sections = [Section("What the chips keep", blocks=tuple(blocks))]
    if errors:
        sections.append(Section("What the cells make of the weights", "On the first chip.", (layers,)))
    return Report(
        f"{_name(r.arguments)} in resistive memory", verdict, (*sections, _settings(r.arguments, r.crossbar, r.judged))
    )


def _curves(r: ProgramResult) -> Callable[[], str]:
    x = [t + 1 for t in r.times]  # a logarithmic axis has no zero

    def series(chips: Sequence[Sequence[float]]) -> tuple[list[float], ...]:
        columns = list(zip(*chips, strict=True))
        return x, [statistics.mean(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns]

    named = {"as it is": series(r.plain), "drift compensated": series(r.compensated)}
    return lambda: plots.lines(named, xlabel="seconds after programming + 1", ylabel="accuracy", log=True)


def _alt(r: ProgramResult) -> str:
    last = len(r.times) - 1
    ends = [percent(_mean(chips, last)) for chips in (r.plain, r.compensated)]
    return f"Two curves of accuracy over time, ending at {ends[0]} and {ends[1]}."


def _mean(chips: Sequence[Sequence[float]], i: int) -> float:
    return statistics.mean(chip[i] for chip in chips)


def _range(chips: Sequence[Sequence[float]], i: int) -> str:
    values = [chip[i] for chip in chips]
    return f"{percent(min(values))} to {percent(max(values))}"


def _age(t_s: float) -> str:
    """
    >>> _age(0), _age(3600), _age(172800), _age(90)
    ('0 s', '1 h', '2 d', '90 s')
    """
    for size, unit in ((86_400, "d"), (3600, "h")):
        if t_s >= size and t_s % size == 0:
            return f"{t_s / size:g} {unit}"
    return f"{t_s:g} s"
