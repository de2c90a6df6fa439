"""``netfit cost``: the operators of a network, counted or timed."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ._options import Classes, Count, InShape, Json, Model, Original, PolicyFile, Seed, shape
from ._output import Output, answer, si, table

if TYPE_CHECKING:
    from netfit.surgery import Policy
    from netfit.targets import Target

    from ._network import Network

__all__ = ["cost"]


def cost(
    model: Model,
    /,
    *,
    target: Annotated[
        str, Parameter(help="workload counts; host, host:onnxruntime, systolic:128x128, gpu:h100 ... say times.")
    ] = "workload",
    in_shape: InShape = None,
    num_classes: Classes = None,
    original: Original = None,
    batch: Annotated[Count, Parameter(help="Samples of one inference.")] = 1,
    policy: PolicyFile | None = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Count or time the operators of a network."""
    size = shape(in_shape)
    from netfit.seeding import seed_everything
    from netfit.surgery import Policy
    from netfit.targets import parse

    from ._network import open_network

    device = None if target == "workload" else parse(target)
    changes = None if policy is None else Policy.load(policy)
    seed_everything(seed)
    network = open_network(model, size, num_classes, original)
    head = {"model": model, "target": target, "policy": policy, "input": [batch, *network.shape]}
    if device is None:
        return _counted(as_json, head, network, batch, changes)
    return _timed(as_json, head, device, network, batch, changes)


def _counted(as_json: bool, head: dict[str, Any], network: "Network", batch: int, policy: "Policy | None") -> Output:
    from netfit.surgery import apply

    from ._network import operators, stored_bytes

    x = network.inputs(batch)
    model = network.model if policy is None else apply(network.model, policy, x)
    workload = operators(model, x)
    rows, totals = workload.table(), workload.totals() | {"stored_bytes": stored_bytes(model, workload)}
    columns = ("operator", "kind", "output", "MACs", "params", "weights", "activations")
    cells = [(_name(row), row["kind"], row["output"], *_counts(row)) for row in rows]
    text = table(columns, cells, (f"{totals['operators']} operators", "", "", *_counts(totals)))
    if totals["stored_bytes"] != totals["weight_bytes"]:
        text += f"\nweights at the precision of the policy: {si(totals['stored_bytes'], 'B')}"
    return answer(as_json, head | {"operators": rows, "totals": totals}, text)


def _counts(row: dict[str, Any]) -> tuple[str, ...]:
    counts = si(row["macs"]), si(row["params"])
    return (*counts, si(row["weight_bytes"], "B"), si(row["act_bytes"], "B"))


def _name(row: dict[str, Any]) -> str:
    return f"{row['name']}#{row['call']}" if row["call"] else row["name"]


def _timed(
    as_json: bool, head: dict[str, Any], device: "Target", network: "Network", batch: int, policy: "Policy | None"
) -> Output:
    found = device.cost(network.model, network.inputs(batch), policy=policy)
    total = found.total()
    whole, lo, hi = float(total.time_s), float(total.lo_s), float(total.hi_s)
    rows = [row | {"share": row["time_s"] / whole if whole else 0.0} for row in found.rows()]
    cells = [
        (
            row["name"], row["kind"], si(row["time_s"], "s"), f"{100 * row['share']:.1f} %",
            si(row["lo_s"], "s"), si(row["hi_s"], "s"),
        )
        for row in rows
    ]  # fmt: skip
    totals = (f"{len(rows)} operators", "", si(whole, "s"), "100.0 %", si(lo, "s"), si(hi, "s"))
    text = table(("operator", "kind", "time", "share", "from", "to"), cells, totals)
    summary = {"time_s": whole, "lo_s": lo, "hi_s": hi, "source": found.source}
    return answer(as_json, head | {"operators": rows, "totals": summary}, f"{text}\n{found.source}")
