"""The pages of `netfit structure` and `netfit structure bench`."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from ._format import count, digits, percent, seconds
from ._model import Facts, Note, Report, Section, Table

__all__ = ["bench_report", "structure_report"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Candidate(_Part):
    """A structure that was tried at a layer."""

    technique: str
    settings: dict[str, Any] = {}
    params: int
    rel_error: float
    low_rank_error: float
    speedup: float
    lo: float
    hi: float
    time_s: float
    chosen: bool


class Layer(_Part):
    """One layer with all that was tried."""

    name: str
    kind: str
    input: tuple[int, ...]
    params: int
    time_s: float
    keep_dense: bool
    candidates: tuple[Candidate, ...] = ()


class Speedup(_Part):
    """Time of the whole network before over after."""

    speedup: float
    lo: float
    hi: float


class StructureResult(_Part):
    """The result of a survey."""

    model: str
    batch: int
    runtime: str
    threads: int
    min_speedup: float
    layers: tuple[Layer, ...]
    policy: dict[str, Any] = {}
    network: Speedup | None = None


class BenchResult(_Part):
    """The result of a sweep over sizes."""

    batch: int
    train: bool
    threads: int
    sizes: tuple[dict[str, float], ...]
    crossover: dict[str, int | None]


def structure_report(result: dict[str, Any]) -> Report:
    """The page of a survey, from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = StructureResult.model_validate(result)
    taken = [layer for layer in r.layers if not layer.keep_dense]
    verdict = f"{len(taken)} of {len(r.layers)} layers become faster by at least {digits(r.min_speedup)} times"
    verdict += f"; the network by {digits(r.network.speedup)}." if r.network else "."
    verdict += "" if r.policy else " Keep dense."
    before, after = sum(layer.params for layer in r.layers), sum(map(_after, r.layers))
    facts: dict[str, str | tuple[str, str]] = {
        "Layers taken": f"{len(taken)} of {len(r.layers)}",
        "Values": (count(after), f"of {count(before)}"),
    }
    if r.network:
        facts["Network"] = (f"{digits(r.network.speedup)} x", f"{digits(r.network.lo)} to {digits(r.network.hi)}")
    overview = Section("What to change", blocks=(Facts(facts), _overview(r)))
    how = (
        f"Timed in {r.runtime} on this machine, batch {r.batch}, {r.threads} thread(s), in turns with the dense layer."
    )
    note = Note("info", "Errors are those of the weights projected in closed form. A weight that is as well met by a "
                "low-rank matrix of the same size has no such structure: the network must be retrained.")  # fmt: skip
    layers = tuple(Section(layer.name, blocks=(_layer(layer),)) for layer in r.layers if layer.candidates)
    return Report(f"Structured layers for {r.model}", verdict, (overview, Section("How", how, (note,)), *layers))


def bench_report(result: dict[str, Any]) -> Report:
    """The page of a sweep, from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = BenchResult.model_validate(result)
    names = list(r.crossover)
    rows = tuple(
        (f"{row['n']:g}", seconds(row["dense_s"]), *(f"{digits(row[n])} x" if n in row else "" for n in names))
        for row in r.sizes
    )
    found = [f"{name} from {n}" if n else f"{name} nowhere" for name, n in r.crossover.items()]
    what = "forward and backward pass" if r.train else "inference"
    table = Table(("size", "dense", *names), rows, "r" * (2 + len(names)), f"Speed-up of {what}, batch {r.batch}")
    return Report("Structured layers by size", "Faster than dense: " + ", ".join(found) + ".",
                  (Section("Speed-up over a dense layer", blocks=(table,)),))  # fmt: skip


def _after(layer: Layer) -> int:
    return next((c.params for c in layer.candidates if c.chosen), layer.params)


def _overview(r: StructureResult) -> Table:
    rows = []
    for layer in r.layers:
        taken = next((c for c in layer.candidates if c.chosen), None)
        best = max((c.speedup for c in layer.candidates), default=None)
        words = _words(taken) if taken else "keep dense"
        speed = taken.speedup if taken else best
        error = percent(taken.rel_error) if taken else ""
        rows.append((layer.name, layer.kind, count(layer.params), words, f"{digits(speed)} x" if speed else "", error))
    columns = ("layer", "kind", "values", "recommended", "faster (or the fastest tried)", "error")
    return Table(columns, tuple(rows), "llrlrr")


def _layer(layer: Layer) -> Table:
    rows = tuple(
        (_words(c), count(c.params), percent(c.rel_error), percent(c.low_rank_error), seconds(c.time_s),
         f"{digits(c.speedup)} x", f"{digits(c.lo)} to {digits(c.hi)}")
        for c in layer.candidates
    )  # fmt: skip
    size = " x ".join(map(str, layer.input))
    note = f"{layer.kind}, input {size}; dense: {count(layer.params)} values, {seconds(layer.time_s)}"
    return Table(("structure", "values", "error", "low rank", "time", "faster", "interval"), rows, "lrrrrrr", note)


def _words(c: Candidate) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in c.settings.items())
    return f"{c.technique} ({settings})" if settings else c.technique
