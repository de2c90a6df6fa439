"""The page of `netfit roofline`: the roofs of one core, where layers stand below them, and which bound holds each."""

from collections import Counter

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure
from ._format import count, percent, seconds, size
from ._model import Block, Facts, Note, Report, Section, Table

__all__ = ["roofline_report"]

_WORDS = {
    "compute": "arithmetic", "latency": "waiting sums", "l1": "L1", "l2": "L2", "l3": "L3", "dram": "main memory",
    "none": "nothing",
}  # fmt: skip
_NOISE, _EXPLAINED = 0.1, 0.6


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Peaks(_Part):
    """What one core can do."""

    device: str
    caches: dict[str, int]
    read: dict[str, float]
    write: dict[str, float]
    ops: dict[str, dict[str, float]]
    curve: tuple[tuple[int, float], ...]
    noise: dict[str, float] = {}


class Operator(_Part):
    """The least time of one operator of the network."""

    name: str
    kind: str
    bound_s: float
    bound: str


class Layer(_Part):
    """One implementation of one layer."""

    name: str
    implementation: str
    precision: str
    operations: float
    bytes: float
    measured_s: float
    bound: str
    share: float
    text: str
    noisy: bool = False


class RooflineResult(_Part):
    """The whole file."""

    model: str | None = None
    peaks: Peaks
    operators: tuple[Operator, ...] = ()
    layers: tuple[Layer, ...] = ()


def roofline_report(result: dict[str, object]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = RooflineResult.model_validate(result)
    sections = (_roofs(r), _layers(r), _network(r), _levels(r))
    title = f"Roofs of {r.peaks.device}" if r.model is None else f"How near {r.model} runs to the roofs"
    return Report(title, _verdict(r), tuple(s for s in sections if s.blocks))


def _verdict(r: RooflineResult) -> str:
    tuned = [x for x in r.layers if x.implementation == "netfit"]
    if not tuned:
        rate = max(r.peaks.ops.get("fp32", {}).values(), default=0.0)
        return f"One core does {count(rate)}OP/s in fp32 and reads {size(r.peaks.read['l1'])}/s from L1."
    good = sum(x.share >= _EXPLAINED for x in tuned)
    (bound, held), *_ = Counter(x.bound for x in tuned).most_common(1)
    text = f"{held} of {len(tuned)} of our kernels are bound by {_WORDS.get(bound, bound)}; "
    return text + f"the bound explains at least {_EXPLAINED:.0%} of the time of {good}."


def _roofs(r: RooflineResult) -> Section:
    facts = {f"read {_WORDS.get(k, k)}": f"{size(v)}/s" for k, v in r.peaks.read.items()}
    tops = {f"{p} {unit}": rate for p, units in r.peaks.ops.items() for unit, rate in units.items()}
    facts |= {name: f"{count(rate)}OP/s" for name, rate in tops.items()}
    slopes = {_WORDS.get(level, level): rate for level, rate in r.peaks.read.items()}
    points: dict[str, list[tuple[float, float]]] = {}
    for x in r.layers:
        at = (x.operations / x.bytes, x.operations / x.measured_s)
        points.setdefault(f"{x.implementation} {x.precision}", []).append(at)

    def plot() -> str:
        return plots.roofs(slopes, tops, points, xlabel="operations a byte (operands once)", ylabel="operations/s")

    alt = f"Roofline plot: {len(slopes)} bandwidths, {len(tops)} arithmetic peaks, {len(r.layers)} layers."
    blocks: list[Block] = [Facts(facts), figure("Roofs of one core; points are measured kernels", alt, plot)]
    uneven = {name: value for name, value in r.peaks.noise.items() if value > _NOISE}
    if uneven:
        worst = max(uneven, key=lambda name: uneven[name])
        text = (
            f"{len(uneven)} of {len(r.peaks.noise)} measurements were uneven (median more than {_NOISE:.0%} above the "
        )
        blocks.append(Note("info", f"{text}fast repeats), most of all {worst}: {uneven[worst]:.0%}."))
    return Section("What one core can do", blocks=tuple(blocks))


def _layers(r: RooflineResult) -> Section:
    columns = ("layer", "kernel", "precision", "time", "rate", "bound by", "explains", "why")
    rows = tuple(
        (
            x.name, x.implementation, x.precision, seconds(x.measured_s) + (" (noisy)" if x.noisy else ""),
            f"{count(x.operations / x.measured_s)}OP/s", _WORDS.get(x.bound, x.bound), percent(x.share), x.text,
        )
        for x in r.layers
    )  # fmt: skip
    blocks = (
        (Table(columns, rows, "lllrrlr", note="Time of the bound as a share of the measured time"),) if rows else ()
    )
    return Section("Layers beside their bounds", blocks=blocks)


def _network(r: RooflineResult) -> Section:
    rows = tuple((x.name, x.kind, seconds(x.bound_s), _WORDS.get(x.bound, x.bound)) for x in r.operators if x.bound_s)
    total = sum(x.bound_s for x in r.operators)
    note = f"{seconds(total)} for the network, operators one after the other"
    blocks = (Table(("operator", "kind", "at least", "bound by"), rows, "llrl", note=note),) if rows else ()
    return Section("Least time of every operator", blocks=blocks)


def _levels(r: RooflineResult) -> Section:
    rows = tuple(
        (_WORDS.get(level, level), size(r.peaks.caches[level]) if level in r.peaks.caches else "",
         f"{size(rate)}/s", f"{size(r.peaks.write.get(level, 0.0))}/s")
        for level, rate in r.peaks.read.items()
    )  # fmt: skip
    curve = {"bandwidth": [(float(a), b) for a, b in r.peaks.curve]}

    def plot() -> str:
        return plots.scatter_pareto(curve, xlabel="bytes of the buffer", ylabel="bytes read a second", log=True)

    alt = "Read bandwidth falls in steps as the buffer outgrows each cache."
    blocks = (
        Table(("level", "size", "read", "write"), rows, "lrrr"),
        figure("Repeated reads of one buffer", alt, plot),
    )
    text = "CPU time of one thread; short repeats in rounds, the fast ones believed: others only slow a repeat down."
    return Section("Levels of the memory", text, blocks)
