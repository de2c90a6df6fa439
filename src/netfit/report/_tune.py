"""The pages of `netfit tune` and `netfit embed`."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure
from ._format import count, percent, seconds, size, yes_no
from ._model import Block, Facts, Note, Report, Section, Table

__all__ = ["embed_report", "tune_network_report", "tune_report"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Best(_Part):
    """The fastest configuration."""

    knobs: dict[str, int]
    seconds: float
    found_at: int
    noise: float | None = None
    default_s: float | None = None


class Map(_Part):
    """Share of valid points over two knobs."""

    x: str
    y: str
    xs: tuple[int, ...]
    ys: tuple[int, ...]
    share: tuple[tuple[float, ...], ...]


class TuneResult(_Part):
    """The whole file."""

    operation: str
    target: str
    tuner: str
    points: int
    attempts: int
    measured: int
    why_invalid: dict[str, int]
    statuses: dict[str, int]
    curve: tuple[tuple[int, float], ...]
    baseline: tuple[tuple[int, float], ...] | None = None
    best: Best
    map: Map | None = None


def tune_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = TuneResult.model_validate(result)
    gain = "" if r.best.default_s is None else f"; {r.best.default_s / r.best.seconds:.2f} times as fast as untuned"
    verdict = f"{seconds(r.best.seconds)} found at attempt {r.best.found_at} of {r.attempts}{gain}."
    facts = Facts({
        "Target": r.target, "Tuner": r.tuner, "Configurations": count(r.points),
        "Valid": percent(r.why_invalid.get("ok", 0) / max(1, sum(r.why_invalid.values()))),
        "Attempts": str(r.attempts), "Measured in the last run": str(r.measured),
    })  # fmt: skip
    knobs = Table(("knob", "best"), tuple((k, str(v)) for k, v in r.best.knobs.items()), "lr")
    sections = (
        Section("What was found", blocks=(facts, knobs, *_noise(r))),
        Section("The search", blocks=(_search(r), _counts("What attempts gave", r.statuses))),
        Section("What the space allows", blocks=_space(r)),
    )
    return Report(f"Tuning {r.operation}", verdict, sections)


class Row(_Part):
    """One operator of a network."""

    operator: str
    places: tuple[str, ...]
    default_s: float
    seconds: float
    attempts: int
    knobs: dict[str, int]


class TuneNetworkResult(_Part):
    """The whole file."""

    operation: str
    target: str
    tuner: str
    rows: tuple[Row, ...]
    before_s: float
    after_s: float
    covered: float


def tune_network_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = TuneNetworkResult.model_validate(result)
    verdict = (
        f"{seconds(r.before_s)} untuned, {seconds(r.after_s)} tuned: {r.before_s / r.after_s:.2f} times as fast. "
        f"These operators do {percent(r.covered)} of the multiply-accumulates."
    )
    head = ("operator", "places", "untuned", "tuned", "times", "attempts", "knobs")
    rows = tuple(
        (o.operator, ", ".join(o.places), seconds(o.default_s), seconds(o.seconds), f"{o.default_s / o.seconds:.2f}",
         str(o.attempts), ", ".join(f"{k} {v}" for k, v in o.knobs.items()))
        for o in r.rows
    )  # fmt: skip
    facts = Facts({"Target": r.target, "Tuner": r.tuner, "Distinct operators": str(len(r.rows))})
    return Report(
        f"Tuning {r.operation}", verdict, (Section("Operators", blocks=(facts, Table(head, rows, "llrrrrl"))),)
    )


def _noise(r: TuneResult) -> tuple[Block, ...]:
    if r.best.noise is None or r.best.noise < 0.1:
        return ()
    text = f"The median of its repeats is {percent(r.best.noise)} above the least: the machine was busy."
    return (Note("info", text),)


def _search(r: TuneResult) -> Block:
    series = {f"{r.tuner}": r.curve}
    if r.baseline:
        series["random, all points"] = r.baseline
    drawn = {name: ([float(x) for x, _ in c], [1e3 * y for _, y in c]) for name, c in series.items() if c}

    def plot() -> str:
        return plots.lines(drawn, xlabel="attempts, invalid ones included", ylabel="best ms", steps=True)

    alt = f"Least time over {r.attempts} attempts; {len(drawn)} curves."
    return figure("Least time after so many attempts", alt, plot)


def _counts(note: str, counts: dict[str, int]) -> Table:
    total = max(1, sum(counts.values()))
    rows = tuple((name, str(n), percent(n / total)) for name, n in sorted(counts.items(), key=lambda x: -x[1]))
    return Table(("outcome", "points", "share"), rows, "lrr", note=note)


def _space(r: TuneResult) -> tuple[Block, ...]:
    blocks: list[Block] = [_counts("Rules a point breaks first; ok: it breaks none", r.why_invalid)]
    if r.map is not None:
        m = r.map
        steps = [0.001, 0.1, 0.25, 0.5]
        labels = ["none", "to 10 %", "to 25 %", "to 50 %", "more"]

        def plot() -> str:
            xs, ys = [float(i) for i in range(len(m.xs))], [float(i) for i in range(len(m.ys))]
            return plots.heat_map(
                m.share, xs, ys, levels=steps, labels=labels, xlabel=f"{m.x}: place of the value",
                ylabel=f"{m.y}: place of the value",
            )  # fmt: skip

        alt = f"Share of valid configurations over {m.x} and {m.y}."
        blocks.append(figure("Validity map: valid configurations cluster", alt, plot))
    return tuple(blocks)


class Axis(_Part):
    """One axis of the operator."""

    name: str
    extent: int
    tile: int
    loops: int
    lanes: str


class EmbedResult(_Part):
    """The whole file."""

    convolution: str
    core: str
    macs: int
    calls: int
    reference_calls: int
    roles: str
    proven: bool
    seconds: float
    utilization: float
    reference_utilization: float
    axes: tuple[Axis, ...]
    layouts: dict[str, str]
    packed_bytes: float
    cycles: dict[str, float]
    reference_cycles: dict[str, float]


def embed_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = EmbedResult.model_validate(result)
    verdict = f"{count(r.calls)} instructions, {r.reference_calls / r.calls:.3g} times fewer than with channels on the "
    verdict += "lanes, " + ("proven least." if r.proven else "not proven least.")
    facts = Facts({
        "Core": r.core, "Left operand": "image" if r.roles == "plain" else "weights",
        "Core used": (percent(r.utilization), percent(r.reference_utilization)),
        "Proven least": yes_no(r.proven), "Search": seconds(r.seconds), "Packed image": size(r.packed_bytes),
    })  # fmt: skip
    axes = tuple((a.name, str(a.extent), str(a.tile), str(a.loops), a.lanes) for a in r.axes)
    drawn = Table(
        ("axis", "extent", "values in the lanes", "loops around", "axis of the instruction"), axes, "lrrrl",
        note="The instruction: out[x, y] += left[x, z] * right[y, z]. A tile above 1 lies in its lanes.",
    )  # fmt: skip

    def plot() -> str:
        names = [a.name for a in r.axes]
        series = {"loops": [float(a.loops) for a in r.axes], "in the lanes": [float(a.tile) for a in r.axes]}
        return plots.bars_grouped(names, series, xlabel="values of the axis")

    picture = figure("Where the values of each axis go", "Bars: loops and lanes of every axis.", plot)
    rows = [(name, value) for name, value in r.layouts.items()]
    names = ("accelerator", "packing", "total")
    cycles = tuple((n, count(r.reference_cycles[n]), count(r.cycles[n])) for n in names)
    sections = (
        Section("What was found", blocks=(facts, drawn, picture)),
        Section("Layouts that follow", blocks=(Table(("operand", "layout"), tuple(rows), "ll"),)),
        Section("Simulated cycles", blocks=(Table(("", "channels on the lanes", "embedded"), cycles, "lrr"),)),
    )
    return Report(f"Embedding {r.convolution}", verdict, sections)
