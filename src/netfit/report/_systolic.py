"""The page of `netfit systolic sweep`: which array for all networks, what it trades, and which layers use it badly."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure, pairs
from ._format import count, digits, percent
from ._model import Block, Code, Facts, Report, Section, Table

__all__ = ["systolic_report"]

_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000)
_WORDS = {
    "cycles": "cycles",
    "energy_j": "energy",
    "edp": "energy x time",
    "pe_cycles": "cycles x elements",
    "buffer_bytes": "buffer bytes",
    "dram_bytes": "memory bytes",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Robust(_Part):
    """The array of least worst regret."""

    objective: str
    fields: dict[str, int]
    regret: float


class Network(_Part):
    """One network of the sweep: its own best array, and what the common one wastes on it."""

    model: str
    macs: float
    regret: float
    best: dict[str, float]


class Member(_Part):
    """One array of the front; values are relative to the best of all arrays."""

    fields: dict[str, int]
    values: dict[str, float]


class Map(_Part):
    """Worst regret, one list per row count."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    regret: tuple[tuple[float, ...], ...]


class Layer(_Part):
    """How one layer uses the common array."""

    model: str
    name: str
    kind: str
    utilization: float
    cause: str
    text: str


class SystolicResult(_Part):
    """The whole file."""

    arrays: int
    robust: Robust
    networks: tuple[Network, ...]
    objectives: tuple[str, ...]
    front: tuple[Member, ...] = ()
    sample: tuple[tuple[float, float], ...] = ()
    map: Map | None = None
    layers: tuple[Layer, ...] = ()
    source: dict[str, Any] = {}
    arguments: dict[str, Any] = {}


def systolic_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = SystolicResult.model_validate(result)
    what = _WORDS.get(r.robust.objective, r.robust.objective)
    verdict = f"{_size(r.robust.fields)} serves all networks with at most {percent(r.robust.regret)} more {what} "
    verdict += "than the best array for each."
    sections = (_choice(r, what), _front(r), _layers(r), _method(r))
    names = ", ".join(n.model for n in r.networks)
    return Report(f"Systolic arrays for {names}", verdict, tuple(s for s in sections if s.blocks))


def _size(fields: dict[str, int] | dict[str, float]) -> str:
    return f"{fields['rows']:g} x {fields['cols']:g}"


def _choice(r: SystolicResult, what: str) -> Section:
    facts = {"Array": _size(r.robust.fields), "Worst regret": percent(r.robust.regret), "Arrays": count(r.arrays)}
    columns = ("network", "MACs", "its best array", f"regret in {what}")
    rows = tuple((n.model, count(n.macs), _size(n.best), percent(n.regret)) for n in r.networks)
    blocks: list[Block] = [Facts(facts), Table(columns, rows, "lrrr")]
    if r.map is not None:
        grid, fields = r.map, r.robust.fields
        levels = [level for level in _LEVELS if level > r.robust.regret][:5] or [2 * r.robust.regret]
        labels = [f"≤ {100 * level:g} %" for level in levels] + ["more"]
        alt = f"Heat map of the worst regret over rows and columns; least at {_size(fields)}."

        def plot() -> str:
            return plots.heat_map(
                grid.regret, grid.cols, grid.rows, levels=levels, labels=labels, xlabel="columns", ylabel="rows",
                chosen=(fields["cols"], fields["rows"]),
            )  # fmt: skip

        blocks.append(figure(f"Worst regret over all networks, in {what}", alt, plot))
    return Section("One array for all networks", blocks=tuple(blocks))


def _front(r: SystolicResult) -> Section:
    if len(r.objectives) < 2 or not r.front:
        return Section("What an array trades")
    x, y = r.objectives[:2]
    points = [(m.values[x], m.values[y]) for m in r.front]
    chosen = next(((m.values[x], m.values[y]) for m in r.front if m.fields == r.robust.fields), None)

    def plot() -> str:
        # With a third objective the front is a surface: its points are drawn, not a line through them.
        line = points if len(r.objectives) == 2 else ()
        groups = {"arrays": r.sample, "front": points}
        return plots.scatter_pareto(
            groups, front=line, chosen=chosen, log=True,
            xlabel=f"{_WORDS.get(x, x)} / best", ylabel=f"{_WORDS.get(y, y)} / best",
        )  # fmt: skip

    alt = f"Scatter plot of {_WORDS.get(x, x)} against {_WORDS.get(y, y)}, {len(points)} arrays on the front."
    caption = "Mean over the networks, each beside the best that any array reaches on it; both small is good"
    names = tuple(_WORDS.get(o, o) for o in r.objectives)
    rows = tuple((_array(m.fields), *(digits(m.values[o]) for o in r.objectives)) for m in r.front)
    listed = Table(("array", *names), rows, "l" + "r" * len(names), note="Arrays that no other one beats")
    return Section("What an array trades", blocks=(figure(caption, alt, plot), listed))


def _array(fields: dict[str, int]) -> str:
    more = [f"{name} {value}" for name, value in fields.items() if name not in ("rows", "cols")]
    return ", ".join([_size(fields), *more])


def _layers(r: SystolicResult) -> Section:
    columns = ("network", "layer", "kind", "used", "largest loss", "why")
    worst = sorted(r.layers, key=lambda layer: layer.utilization)
    rows = tuple((x.model, x.name, x.kind, percent(x.utilization), x.cause, x.text) for x in worst)
    blocks = (Table(columns, rows, "lllr", note="The worst first"),) if rows else ()
    return Section(f"How the layers use {_size(r.robust.fields)}", blocks=blocks)


def _method(r: SystolicResult) -> Section:
    config = r.source.get("config", {})
    swept = set(r.robust.fields)
    settings = {k: v for k, v in config.items() if k not in swept and v is not None}
    text = "Every array is counted in closed form; the forms are proved by a register-level simulator."
    blocks: tuple[Block, ...] = (pairs({"counting": r.source.get("compat") or "native"} | settings),)
    if r.arguments:
        blocks += (Code("\n".join(f"{name}: {_short(value)}" for name, value in r.arguments.items())),)
    return Section("How it was counted", text, blocks)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + " ..."
