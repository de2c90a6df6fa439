"""The result beside others: the same search for other targets, and other tools at the same task."""

from .. import plots
from .._blocks import figure
from .._format import MISSING, digits, each, percent
from .._model import Block, Section, Table
from ._schema import CompressResult

__all__ = ["peers", "specialisation"]


def specialisation(r: CompressResult) -> Section:
    """What the policies found for each target are worth on every other one."""
    if r.also is None or not r.also.targets:
        return Section("Other targets")
    names = r.also.targets
    rows = tuple((on, *(each(percent, r.also.score.get(on, {}).get(found_for)) for found_for in names)) for on in names)
    table = Table(("runs on, found for", *names), rows, "l" + "r" * len(names), "Best score within the goal")
    text = (
        "The same search was made for each target. A dash: no policy found for the one meets the goal on the other. "
        f"The policy found for a target is the best one there for {len(r.also.diagonal_best)} of {len(names)}."
    )
    costs = tuple(
        (found, str(p.number), each(percent, p.score), *(each(digits, p.ratio.get(on)) for on in names))
        for found in names
        for p in r.also.policies.get(found, ())
    )
    columns = ("found for", "trial", "score", *(f"cost on {on}" for on in names))
    return Section(
        "Other targets", text, (table, Table(columns, costs, "lrr" + "r" * len(names), "Every policy tried"))
    )


def peers(r: CompressResult) -> Section:
    """Other tools' points, retrained in the same way, beside ours."""
    if not r.peers:
        return Section("Beside other tools")
    accuracy = r.final.accuracy if r.final.accuracy_deployed is None else r.final.accuracy_deployed
    rows = [("netfit", r.final.ratio, accuracy), *((p.name, p.ratio, p.accuracy) for p in r.peers)]
    groups: dict[str, list[tuple[float, float]]] = {}
    for name, ratio, value in rows:
        if ratio is not None and value is not None:
            groups.setdefault(name, []).append((ratio, 100 * value))
    blocks: list[Block] = [
        figure(
            "Latency against test accuracy after retraining",
            "; ".join(f"{name}: {points}" for name, points in groups.items()),
            lambda: plots.scatter_pareto(groups, goal=r.goal.latency, ylabel="test accuracy, %"),
        ),
        Table(
            ("tool", "latency ratio", "accuracy"),
            tuple((name or MISSING, each(digits, ratio), each(percent, value)) for name, ratio, value in rows),
            "lrr",
        ),
    ]
    return Section("Beside other tools", "The same trials, the same retraining, the same clock.", tuple(blocks))
