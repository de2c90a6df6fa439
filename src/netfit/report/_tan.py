"""The page of `netfit bayes tan`: classifiers by size and error, and what depends on what."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure
from ._format import count, percent
from ._model import Block, Facts, Report, Section, Table

__all__ = ["tan_report"]


class Point(BaseModel):
    """One classifier."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    family: str
    name: str
    error: float
    bytes: int
    operations: int
    file: str = ""
    parents: tuple[int, ...] = ()
    values: tuple[int, ...] = ()


class TanResult(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    data: str
    features: tuple[str, ...]
    classes: tuple[str, ...]
    rows: int
    test_rows: int
    points: tuple[Point, ...]


def tan_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = TanResult.model_validate(result)
    front = _front(r.points)
    best = min(r.points, key=lambda p: (p.error, p.bytes))
    verdict = f"{percent(best.error)} wrong in {count(best.bytes)} bytes ({best.family}, {best.name})."
    facts = Facts({"Training rows": count(r.rows), "Test rows": count(r.test_rows), "Features": str(len(r.features)),
                   "Classes": str(len(r.classes))})  # fmt: skip
    columns = ("family", "classifier", "wrong", "bytes", "operations", "C file", "on the front")
    rows = tuple(
        (p.family, p.name, percent(p.error), count(p.bytes), count(p.operations), p.file, "yes" if p in front else "")
        for p in sorted(r.points, key=lambda p: p.bytes)
    )
    note = "Operations of one prediction: additions of integers (TAN), multiply-accumulates (MLP)."
    blocks: list[Block] = [facts, Table(columns, rows, "llrrrll", note=note)]
    if len(r.points) > 1:
        blocks.insert(1, _pareto(r, front))
    return Report(f"Classifiers of {r.data}", verdict, (Section("Size against error", blocks=tuple(blocks)), _tree(r)))


def _front(points: tuple[Point, ...]) -> list[Point]:
    """Points that no other one beats in bytes and error."""
    found: list[Point] = []
    for p in sorted(points, key=lambda p: (p.bytes, p.error)):
        if not found or p.error < found[-1].error:
            found.append(p)
    return found


def _pareto(r: TanResult, front: list[Point]) -> Block:
    groups = {
        family: [(p.bytes, 1 - p.error) for p in r.points if p.family == family]
        for family in sorted({p.family for p in r.points})
    }

    def plot() -> str:
        line = [(p.bytes, 1 - p.error) for p in front]
        return plots.scatter_pareto(groups, front=line, xlabel="bytes of all parameters", ylabel="accuracy", log=True)

    return figure("Accuracy against size", "Scatter plot of accuracy over bytes with the Pareto front.", plot)


def _tree(r: TanResult) -> Section:
    """Parents in the most accurate Bayesian-network classifier."""
    known = [p for p in r.points if p.parents]
    if not known:
        return Section("What depends on what")
    best = min(known, key=lambda p: (p.error, p.bytes))
    rows = tuple(
        (name, str(size), r.features[parent] if parent >= 0 else "")
        for name, size, parent in zip(r.features, best.values, best.parents, strict=True)
    )
    return Section(
        f"What depends on what: {best.name}", blocks=(Table(("feature", "values", "depends on"), rows, "lrl"),)
    )
