"""``netfit roofline``: the bounds of this machine, and how near the layers of a network run to them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from netfit.errors import ConfigError

from ._options import Count, InShape, Json, Model, Seed, shape, words
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.workload import Workload

__all__ = ["roofline"]

_PRECISIONS, _IMPLEMENTATIONS = ("fp32", "int8", "bits"), ("netfit", "torch", "naive")


def roofline(
    model: Model | None = None,
    /,
    *,
    precisions: Annotated[str, Parameter(help="Of the kernels that are timed, by commas.")] = "fp32,int8,bits",
    implementations: Annotated[str, Parameter(help="Whose kernels are timed, by commas.")] = "netfit,torch,naive",
    seconds: Annotated[
        float, Parameter(help="Seconds for one shape in one precision.", validator=Number(gt=0, lte=600))
    ] = 0.5,
    fresh: Annotated[bool, Parameter(negative="", help="Measure the peaks again.")] = False,
    in_shape: InShape = None,
    batch: Annotated[Count, Parameter(help="Samples of one inference.")] = 1,
    run: Annotated[Path | None, Parameter(help="Run directory; runs/... by default.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Measure what one core can do, and explain the layers of a network by it."""
    timed = {
        "precisions": words("--precisions", precisions, _PRECISIONS),
        "implementations": words("--implementations", implementations, _IMPLEMENTATIONS),
    }
    size = shape(in_shape)
    if model is None and (size is not None or batch != 1):
        raise ConfigError("--in-shape and --batch describe a network: name a MODEL")
    from netfit.runs import Run
    from netfit.targets.roofline import measure_peaks

    workload = None if model is None else _operators(model, size, batch)
    arguments = {"model": model, "input": size, "batch": batch, **timed, "seconds": seconds, "fresh": fresh}
    with Run.open(run, "roofline", arguments, seed) as opened:
        peaks = opened.stage("peaks", lambda: measure_peaks(fresh=fresh).to_json())
        facts = _work(model, workload, peaks, timed, seconds, seed)
        opened.write_result(facts)
    return _outcome(opened.path, as_json, facts)


def _operators(model: str, size: tuple[int, ...] | None, batch: int) -> "Workload":
    from ._network import open_network, operators

    network = open_network(model, size)
    return operators(network.model, network.inputs(batch))


def _work(
    model: str | None, workload: "Workload | None", peaks_json: dict[str, Any], timed: Mapping[str, Any],
    seconds: float, seed: int,
) -> dict[str, Any]:  # fmt: skip
    from netfit.targets.roofline import Peaks, Roofline, explain_layers

    peaks = Peaks.from_json(peaks_json)
    facts: dict[str, Any] = {"kind": "roofline", "model": model, "peaks": peaks.to_json()}
    if workload is None:
        return facts | {"operators": [], "layers": []}
    bounds = Roofline(peaks).cost(workload)
    rows = [
        {"name": row["name"], "kind": row["kind"], "bound_s": row["time_s"], "bound": _binding(row)}
        for row in bounds.rows()
    ]
    layers = [
        {
            "name": layer.name, "product": layer.product, "implementation": layer.implementation,
            "precision": layer.precision, "noisy": layer.noisy, "operations": 2 * layer.shape.macs,
            "bytes": _least_bytes(layer.shape, layer.precision),
            **{key: value for key, value in asdict(layer.explanation).items() if key != "name"},
        }
        for layer in explain_layers(workload, peaks, budget_s=seconds, seed=seed, **timed)
    ]  # fmt: skip
    return facts | {"operators": rows, "layers": layers}


def _binding(row: Mapping[str, Any]) -> str:
    parts = {key.removeprefix("breakdown."): value for key, value in row.items() if key.startswith("breakdown.")}
    return max(parts, key=lambda key: parts[key]) if any(parts.values()) else "none"


def _least_bytes(sizes: Any, precision: str) -> float:
    """Operands once each: the abscissa of a roofline."""
    from netfit.targets.roofline import least

    work = least(sizes, precision, 1)
    return float(sum(o.elements(nest.extents) * o.itemsize for nest in work.nests for o in nest.operands))


def _outcome(place: Path, as_json: bool, facts: Mapping[str, Any]) -> Output:
    write_page(place)
    peaks = facts["peaks"]
    roofs = [(f"read {level}", si(rate, "B/s")) for level, rate in peaks["read"].items()]
    roofs += [
        (f"{precision} {unit}", si(rate, "OP/s"))
        for precision, units in peaks["ops"].items()
        for unit, rate in units.items()
    ]
    text = table(("peak of one core", ""), roofs)
    if facts["layers"]:
        rows = [
            (x["name"], x["implementation"], x["precision"], si(x["measured_s"], "s"), x["bound"], f"{x['share']:.0%}")
            for x in facts["layers"]
        ]
        text += "\n\n" + table(("layer", "kernel", "precision", "time", "bound", "explains"), rows)
    return answer(as_json, {"run": place, **facts}, f"{text}\nreport: {place / 'report.html'}")
