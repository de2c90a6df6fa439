"""Why is the compressed network not faster still? Facts of one measured file, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from netfit.surgery import Quantize
from netfit.targets import CostTable
from netfit.workload import Op, Workload

__all__ = ["why_not_faster"]

SLOW = 0.5  # of the best layer's rate: a layer below it is explained
BUSY = 0.5  # of the best layer's traffic: a slow layer above it waits for memory
CONVERSIONS = ("reorder", "convert", "quantize", "dequantize", "transpose", "permute", "cast")


def why_not_faster(
    layers: Sequence[Mapping[str, Any]], after: Workload, table: CostTable, lanes: int, steps: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the time of a measured network goes, and what keeps its layers from the rate of the best one.

    Args:
        layers: rows of the report, with ``name``, ``executed``, ``kept``, ``time_after_s``.
        after: the compressed network.
        table: time of every kernel that the runtime executes.
        lanes: channels that the target takes at a time.
        steps: channel counts that pay, by group, full count last.

    Returns:
        ``share``: parts of the time spent in layers with weights, in conversions and in everything else;
        ``layers``: those that run at less than half of the best rate, with the reason; ``steps``: as given.
    """
    total = float(table.total().time_s)
    named = {row["name"] for row in layers}
    kinds = {name: kind.lower() for name, kind in zip(table.names, table.kind, strict=True)}
    seconds = dict(zip(table.names, map(float, table.time_s), strict=True))
    weighted = sum(s for n, s in seconds.items() if n in named)
    converted = sum(s for n, s in seconds.items() if n not in named and any(c in kinds[n] for c in CONVERSIONS))
    share = {"layers": weighted, "conversions": converted, "other": total - weighted - converted}
    return {
        "share": {name: part / total for name, part in share.items()} if total else {},
        "layers": _slow(layers, {op.name: op for op in reversed(after.ops)}, lanes),
        "steps": [{"group": g, "channels": s[-1], "useful": list(s)} for g, s in steps.items() if len(s) > 1],
    }


def _slow(layers: Sequence[Mapping[str, Any]], ops: Mapping[str, Op], lanes: int) -> list[dict[str, Any]]:
    timed = [row for row in layers if row.get("time_after_s") and row["name"] in ops]
    best: dict[str, float] = {}
    facts = []
    for row in timed:
        op, seconds = ops[row["name"]], row["time_after_s"]
        size = _bytes(op, row["executed"])
        rate, traffic = op.macs / seconds, size / seconds
        best[row["executed"]] = max(best.get(row["executed"], 0.0), rate)
        facts.append((row, op, rate, traffic, seconds))
    busiest = max((traffic for _, _, _, traffic, _ in facts), default=0.0)
    found = []
    for row, op, rate, traffic, seconds in facts:
        share = rate / best[row["executed"]]
        if share >= SLOW:
            continue
        reason = _reason(row, op, traffic / busiest, lanes)
        found.append({"name": row["name"], "time_s": seconds, "rate": share, "reason": reason})
    return sorted(found, key=lambda f: -f["time_s"])


def _reason(row: Mapping[str, Any], op: Op, traffic: float, lanes: int) -> str:
    if traffic >= BUSY:
        return "waits for memory: it moves many bytes for each multiply-accumulate"
    weight = op.params["weight"].shape
    if weight[0] % lanes or (len(weight) > 1 and weight[1] % lanes and weight[1] > 1):
        return f"{weight[1] if len(weight) > 1 else 1} to {weight[0]} channels do not fill vectors of {lanes}"
    if int(op.attrs.get("groups", 1)) > 1:
        return "grouped: each result adds up few products"
    return "too small to keep the processor busy: calling it costs more than computing it"


def _bytes(op: Op, precision: str) -> float:
    """Bytes of weights and activations at the precision the layer runs in."""
    bits = Quantize.of(precision) if precision not in ("absent", "fp16") else Quantize.of("fp32")
    return op.weight_bytes * bits.weight_bits / 32 + op.act_bytes * bits.act_bits / 32
