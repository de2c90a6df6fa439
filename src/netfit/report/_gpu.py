"""The page of `netfit gpu evaluate`: what a predictor was tested on, and how far to trust it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from ._blocks import pairs
from ._format import count, digits, percent
from ._model import Block, Facts, Report, Section, Table

__all__ = ["gpu_report"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Score(_Part):
    """One protocol, or one left-out device of it."""

    protocol: str
    left_out: str
    rows: int
    mape: float
    median_ape: float
    within_10: float
    coverage: float | None = None


class GPUResult(_Part):
    """The whole file."""

    quantity: str
    rows: int
    scores: tuple[Score, ...]
    warnings: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    database: str = ""


def gpu_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = GPUResult.model_validate(result)
    first = r.scores[0] if r.scores else None
    verdict = f"{r.quantity.capitalize()} of {count(r.rows)} measured kernels."
    if first is not None:
        verdict = f"{first.protocol}: {digits(first.mape)} % mean error, {digits(first.median_ape)} % median."
    sections = (_scores(r), _beware(r), Section("How it was trained", blocks=(pairs(r.settings),)))
    return Report(f"How well {r.quantity} of GPU kernels is predicted", verdict, tuple(s for s in sections if s.blocks))


def _scores(r: GPUResult) -> Section:
    columns = ("protocol", "left out", "rows", "MAPE %", "median %", "within 10 %", "in 90 % interval")
    rows = tuple(
        (
            s.protocol, s.left_out, count(s.rows), digits(s.mape), digits(s.median_ape), percent(s.within_10),
            "" if s.coverage is None else percent(s.coverage),
        )
        for s in r.scores
    )  # fmt: skip
    note = "Protocols that leave whole groups out come first; a random split flatters"
    facts: Block = Facts({"Kernels": count(r.rows), "Database": r.database, "Predicted": r.quantity})
    return Section("What it had not seen", blocks=(facts, Table(columns, rows, "llrrrrr", note)))


def _beware(r: GPUResult) -> Section:
    if not r.warnings:
        return Section("Beware")
    return Section("Beware", blocks=(Table(("warning",), tuple((w,) for w in r.warnings), "l"),))
