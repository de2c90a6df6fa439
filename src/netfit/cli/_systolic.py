"""``netfit systolic sweep``: families of systolic arrays on several networks."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._options import Count, InShape, Json, Model, Seed, shape, words
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.runs import Run
    from netfit.targets import SystolicArray
    from netfit.targets.systolic import SweepResult
    from netfit.workload import Workload

__all__ = ["span", "sweep"]

Objective = Literal["cycles", "energy_j", "edp", "pe_cycles", "buffer_bytes", "dram_bytes"]
OBJECTIVES = ("cycles", "energy_j", "edp", "pe_cycles", "buffer_bytes", "dram_bytes")
LARGEST = 4_000_000  # arrays: their columns still fit into the memory of a laptop
DRAWN, LISTED, BLOCK = 64, 200, 65536  # lines of a heat map's axis; arrays of a list; arrays a transaction
Span = Annotated[str, Parameter(help="FIRST:LAST:STEP, both included, or values separated by commas.")]


def sweep(
    models: Annotated[Sequence[Model], Parameter(consume_multiple=True)],
    /,
    *,
    rows: Span = "8:256:8",
    cols: Span = "8:256:8",
    accum_rows: Span | None = None,
    array: Annotated[
        str, Parameter(help="Everything else of the arrays, such as dataflow=os,act_bits=4,dram_bytes_per_s=1e10.")
    ] = "",
    objective: Annotated[str, Parameter(help="What the Pareto front trades, two or more, by commas.")] = (
        "cycles,energy_j"
    ),
    regret: Annotated[Objective, Parameter(help="What the array for all networks shall waste least of.")] = "edp",
    in_shape: InShape = None,
    batch: Annotated[Count, Parameter(help="Samples of one inference.")] = 1,
    run: Annotated[Path | None, Parameter(help="Run directory; runs/... by default.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Count every array of a grid on several networks."""
    chosen = words("--objective", objective, OBJECTIVES)
    space = {"rows": span("--rows", rows), "cols": span("--cols", cols)}
    space |= {} if accum_rows is None else {"accum_rows": span("--accum-rows", accum_rows)}
    if (n := prod(map(len, space.values()))) > LARGEST:
        raise ConfigError(f"{n} arrays: allowed are at most {LARGEST}; take larger steps")
    size = shape(in_shape)
    from netfit.runs import Run
    from netfit.targets import parse
    from netfit.targets.systolic import sweep as count

    target: Any = parse("systolic:1x1" + (array and f",{array}"))
    workloads = _workloads(models, size, batch)
    result = count(workloads, space, target.config, target.compat)
    arguments = {"models": list(models), "space": space, "array": array, "objective": chosen, "regret": regret}
    with Run.open(run, "systolic", arguments | {"input": size, "batch": batch}, seed) as opened:
        facts = _work(opened, result, workloads, target, chosen, regret)
        opened.write_result(facts)
    return _outcome(opened.path, as_json, facts)


def span(option: str, text: str) -> list[int]:
    """Read ``8:512:8`` (both ends included) or ``8,16,32``.

    Raises:
        ConfigError: it is neither.

    >>> span("--rows", "8:32:8"), span("--rows", "16,128")
    ([8, 16, 24, 32], [16, 128])
    """
    parts = text.replace(",", ":").split(":")
    if not all(part.strip().isdecimal() and 0 < int(part) < 2**31 for part in parts):
        raise ConfigError(f"{option} {text!r}: allowed are positive whole numbers, such as 8:512:8 or 8,16,32")
    numbers = [int(part) for part in parts]
    if ":" not in text:
        return sorted(set(numbers))
    if "," in text or len(numbers) != 3 or numbers[0] > numbers[1] or (numbers[1] - numbers[0]) // numbers[2] > LARGEST:
        raise ConfigError(f"{option} {text!r}: allowed is FIRST:LAST:STEP with FIRST <= LAST, such as 8:512:8")
    return list(range(numbers[0], numbers[1] + 1, numbers[2]))


def _workloads(models: Sequence[str], size: tuple[int, ...] | None, batch: int) -> dict[str, "Workload"]:
    from ._network import open_network, operators

    found = {}
    for name in models:
        if name in found:
            raise ConfigError(f"network {name!r} is given twice")
        network = open_network(name, size)
        found[name] = operators(network.model, network.inputs(batch))
    return found


def _work(
    run: "Run", result: "SweepResult", workloads: Mapping[str, "Workload"], target: "SystolicArray",
    objectives: Sequence[str], regret: str,
) -> dict[str, Any]:  # fmt: skip
    """Keep every number in sweep.db, and gather what the page shows."""
    from dataclasses import replace

    from netfit.targets import SystolicArray

    front, sample = _front(run, _columns(result, objectives), list(result.axes), objectives)
    robust = result.robust(regret)
    fields = {name: robust[name] for name in result.axes}
    best = SystolicArray(replace(target.config, **fields), target.compat)
    layers = [
        {"model": name, "name": e.name, "kind": e.kind, "utilization": e.utilization, "cause": e.cause, "text": e.text}
        for name, workload in workloads.items()
        for e in best.explain(workload)
    ]
    networks = [
        {"model": name, "macs": workload.totals()["macs"], "regret": robust["regrets"][name],
         "best": result.best(name, regret), "fewest_cycles": result.best(name, "cycles")}
        for name, workload in workloads.items()
    ]  # fmt: skip
    return {
        "kind": "systolic", "arrays": prod(result.shape), "source": target.fingerprint(),
        "objectives": list(objectives),
        "robust": {"objective": regret, "fields": fields, "regret": robust["regret"]},
        "networks": networks, "front": front, "sample": sample, "map": _map(result, regret), "layers": layers,
    }  # fmt: skip


def _columns(result: "SweepResult", objectives: Sequence[str]) -> dict[str, Any]:
    """Fields of every array, its objectives beside the best (mean over networks), and the counters by network."""
    out: dict[str, Any] = {}
    for name in result.networks:
        counters = result.columns(name)
        out |= {field: counters.pop(field) for field in result.axes}
        out |= {f"{name}:{counter}": column for counter, column in counters.items()}
    return out | {name: result.relative(name).mean(0).ravel() for name in objectives}


def _front(
    run: "Run", columns: Mapping[str, Any], fields: Sequence[str], objectives: Sequence[str]
) -> tuple[list[dict[str, Any]], list[list[float]]]:
    """The arrays that no other one beats, and some of all arrays to draw behind them."""
    from netfit.search import Sweep

    n = len(columns[fields[0]])
    store = Sweep(run.path / "sweep.db", ["number", *columns])
    numbers = range(n)
    blocks = ({"number": numbers[at : at + BLOCK]} for at in range(0, n, BLOCK))
    store.run(blocks, lambda block: {name: column[block["number"].astype(int)] for name, column in columns.items()})
    best = store.pareto(dict.fromkeys(objectives, False))
    store.close()
    order = best[objectives[0]].argsort()
    order = order[:: -(-len(order) // LISTED)]
    front = [
        {"fields": {f: int(best[f][i]) for f in fields}, "values": {o: float(best[o][i]) for o in objectives}}
        for i in order
    ]
    some = range(0, n, -(-n // 500))
    return front, [[float(columns[o][i]) for o in objectives[:2]] for i in some]


def _map(result: "SweepResult", regret: str) -> dict[str, Any] | None:
    """Worst regret over rows and columns, thinned out to what can be drawn."""
    worst = result.heatmap("cols", "rows", regret)
    if min(worst.shape) < 2:
        return None
    high, wide = (-(-n // DRAWN) for n in worst.shape)
    rows, cols = result.axes["rows"][::high].tolist(), result.axes["cols"][::wide].tolist()
    return {"rows": rows, "cols": cols, "regret": worst[::high, ::wide].tolist()}


def _outcome(place: Path, as_json: bool, facts: Mapping[str, Any]) -> Output:
    write_page(place)
    robust = facts["robust"]
    rows = [
        (n["model"], _array(n["best"]), f"{100 * n['regret']:.1f} %", _array(n["fewest_cycles"]),
         si(n["fewest_cycles"]["cycles"]))
        for n in facts["networks"]
    ]  # fmt: skip
    text = table(("network", f"least {robust['objective']}", "regret", "fewest cycles", "cycles"), rows)
    text += f"\n{facts['arrays']} arrays; least regret for all networks: {_array(robust['fields'])}"
    text += f", at most {100 * robust['regret']:.1f} % more {robust['objective']} than each network's own best"
    return answer(as_json, {"run": place, **facts}, f"{text}\nreport: {place / 'report.html'}")


def _array(fields: Mapping[str, Any]) -> str:
    size = f"{fields['rows']}x{fields['cols']}"
    return size + (f", {fields['accum_rows']} accumulator rows" if "accum_rows" in fields else "")
