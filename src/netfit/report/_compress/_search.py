"""The trials of the search, and the retraining of the chosen one."""

import math

from .. import plots
from .._blocks import figure
from .._format import digits, each, percent, yes_no
from .._model import Block, Section, Table
from ._schema import CompressResult, Trial

__all__ = ["retraining", "search"]


def search(r: CompressResult) -> Section:
    """Every trial as a point, the best so far as a curve, and the table of both."""
    if not r.trials:
        return Section("Search")
    points = {
        t.number: (t.ratio, 100 * t.score)
        for t in r.trials
        if t.ratio is not None and t.score is not None and math.isfinite(t.ratio) and math.isfinite(t.score)
    }
    blocks = (_scatter(r, points), _progress(r.trials), _table(r))
    feasible = sum(t.feasible is True for t in r.trials)
    text = (
        f"{len(r.trials)} policies were tried, {feasible} met the goal. The score is the accuracy before "
        "retraining, on images held out from training."
    )
    return Section("Search", text, tuple(b for b in blocks if b))


def retraining(r: CompressResult) -> Section:
    """Accuracy and loss by epoch."""
    blocks = (
        _curve("Accuracy", "accuracy, %", 100.0, {e.epoch: e.accuracy for e in r.history}),
        _curve("Loss", "loss", 1.0, {e.epoch: e.loss for e in r.history}),
    )
    return Section("Retraining", "", tuple(b for b in blocks if b))


def _scatter(r: CompressResult, points: dict[int, tuple[float, float]]) -> Block | None:
    if not points:
        return None
    groups: dict[str, list[tuple[float, float]]] = {}
    for t in r.trials:
        if t.number in points:
            groups.setdefault(t.origin, []).append(points[t.number])
    front = [points[n] for n in r.front if n in points]
    chosen = points.get(r.chosen) if r.chosen is not None else None
    alt = f"Scatter of {len(points)} trials, latency ratio against score; {len(front)} on the Pareto front"
    if chosen:
        alt += f"; chosen: trial {r.chosen} with ratio {digits(chosen[0])} and score {chosen[1]:.2f} %"

    def plot() -> str:
        return plots.scatter_pareto(groups, front=front, chosen=chosen, goal=r.goal.latency, ylabel="score, %")

    return figure("Latency against score of every trial", alt, plot)


def _progress(trials: tuple[Trial, ...]) -> Block | None:
    xs: list[float] = []
    ys: list[float] = []
    for t in sorted(trials, key=lambda t: t.number):
        if t.feasible and t.score is not None and math.isfinite(t.score):
            xs.append(float(t.number))
            ys.append(max([100 * t.score, *ys[-1:]]))
    if len(xs) < 2:
        return None
    alt = f"The best score among trials that meet the goal rises from {ys[0]:.2f} to {ys[-1]:.2f} %"
    curve = {"best": (xs, ys)}
    return figure(
        "Best score so far among those that meet the goal",
        alt,
        lambda: plots.lines(curve, xlabel="trial", ylabel="score, %", steps=True),
    )


def _table(r: CompressResult) -> Table:
    marks = dict.fromkeys(r.front, "front")
    if r.chosen is not None:
        marks[r.chosen] = "chosen"
    rows = tuple(
        (
            str(t.number),
            t.origin,
            each(digits, t.ratio),
            each(percent, t.score),
            yes_no(t.feasible),
            marks.get(t.number, ""),
        )
        for t in r.trials
    )
    return Table(("trial", "origin", "latency ratio", "score", "meets the goal", ""), rows, "rlrrll", "Every trial")


def _curve(name: str, ylabel: str, scale: float, values: dict[int, float | None]) -> Block | None:
    known = {float(epoch): scale * v for epoch, v in values.items() if v is not None and math.isfinite(v)}
    if len(known) < 2:
        return None
    xs, ys = list(known), list(known.values())
    alt = f"{name} over {len(xs)} epochs, from {digits(ys[0])} to {digits(ys[-1])}"
    return figure(f"{name} by epoch", alt, lambda: plots.lines({name: (xs, ys)}, xlabel="epoch", ylabel=ylabel))
