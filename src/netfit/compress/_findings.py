"""What a trade-off study says, as sentences; every number and every verdict in them is computed from its rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["findings"]

REFERENCE, EIGHT = "uniform-fp32", "uniform-int8"
NEAR = 0.01  # accuracy that a good point may lose
HERE = {"latency": "latency on {}", "file": "file size"}  # every other cost is that of a further target
Row = Mapping[str, Any]


def findings(
    rows: Sequence[Row], fronts: Mapping[str, Sequence[str]], accuracy: float, target: str
) -> list[dict[str, str]]:
    """Sentences about a study, each with what it is about.

    Args:
        rows: the points; failed ones among them.
        fronts: names of the points that no other one beats, by cost.
        accuracy: of the uncompressed network, before any retraining.
        target: where the networks were timed.
    """
    done = {row["name"]: row for row in rows if not row["failed"]}
    fair = done[REFERENCE]["accuracy"] if REFERENCE in done else accuracy
    told = _Told(done, fair)
    said = [
        *_reference(told, accuracy),
        *_quantization(told),
        *_pruning(told),
        *_structured(told),
        *_mixed(told, fronts),
        *_memory(told),
        *_targets(told, target),
        *_verdict(told, fronts, target),
        *(("not possible", f"{row['name']}: {row['failed']}.") for row in rows if row["failed"]),
    ]
    return [{"about": about, "text": text} for about, text in said]


class _Told:
    """The measured points and the accuracy they are compared with."""

    def __init__(self, done: Mapping[str, Row], fair: float) -> None:
        self.done, self.fair = done, fair

    def lost(self, row: Row) -> str:
        points = 100 * (self.fair - row["accuracy"])
        return f"{abs(points):.2f} points {'gained' if points < 0 else 'lost'}"

    def near(self, row: Row) -> bool:
        return bool(self.fair - row["accuracy"] <= NEAR + 1e-9)  # a difference of two shares is not exact

    def of(self, *groups: str) -> list[Row]:
        """Points of some groups, the fastest first."""
        return sorted((r for r in self.done.values() if r["group"] in groups), key=lambda r: r["ratio"])

    def named(self, row: Row) -> str:
        """A point with what it takes and loses."""
        return f"{row['name']} ({row['ratio']:.3f} of the latency, {self.lost(row)})"


Said = Iterator[tuple[str, str]]


def _reference(told: _Told, accuracy: float) -> Said:
    text = f"The uncompressed network scores {100 * accuracy:.2f} % on the test split"
    if REFERENCE in told.done:
        text += f", and {100 * told.fair:.2f} % after the retraining that all points get: losses are counted from there"
    yield "reference", text + "."


def _quantization(told: _Told) -> Said:
    rows = [r for r in told.of("quantization") if r["name"] != REFERENCE]
    if rows:
        text = f"Quantization alone is never faster than {told.named(rows[0])}"
        best = next((r for r in rows if told.near(r)), None)
        if best is None:
            text += "; no point of it stays within one point of accuracy"
        elif best is not rows[0]:
            text += f"; within one point of accuracy, than {told.named(best)}"
        yield "quantization", text + "."
    eight = told.done.get(EIGHT)
    for row in rows:
        low = {p: n for p, n in row["asked"].items() if p.startswith("w")}
        if eight is None or not low:
            continue
        asked, native = sum(low.values()), sum(row["executed"].get(p, 0) for p in low)
        gain = row["ratio"] / eight["ratio"]
        ran = f"the runtime executes {native} so, the others as int8" if native else "all run as int8"
        verdict = "faster than" if _faster(row, eight) else "slower than" if _faster(eight, row) else "no faster than"
        size = row["costs"]["file"] / eight["costs"]["file"]
        text = f"{row['name']} asks for less than 8 bits in {asked} places and {ran}: {verdict} int8"
        cost = f"{gain:.2f} of its latency, {size:.2f} of its file"
        yield "quantization", f"{text} ({cost}), {told.lost(row)}."


def _pruning(told: _Told) -> Said:
    alone, eight = told.of("pruning"), told.done.get(EIGHT)
    if alone:
        text = f"Pruning alone reaches {told.named(alone[0])}"
        if best := next((r for r in alone if told.near(r)), None):
            text += "" if best is alone[0] else f"; within one point of accuracy, {told.named(best)}"
        else:
            text += "; no point of it stays within one point of accuracy"
        if eight is not None:
            text += f". {told.named(eight)} {_beside(eight, best or alone[0])}"
        yield "pruning", text + "."
    pairs = [(a, b) for a in alone for b in alone if a["name"].partition("-")[::2] < b["name"].partition("-")[::2]]
    for a, b in pairs:
        (one, _, share), (other, _, same) = a["name"].partition("-"), b["name"].partition("-")
        if share == same and one != other:
            better, worse = sorted((a, b), key=lambda r: -r["accuracy"])
            yield "pruning", (f"At the same share, {told.named(better)} keeps more accuracy than {told.named(worse)}.")
    for row in told.of("pruning and int8"):
        text = f"Both together: {told.named(row)}"
        if eight is not None:
            text += f", {row['ratio'] / eight['ratio']:.2f} of the latency of int8 alone"
        yield "pruning", text + "."


def _faster(row: Row, other: Row) -> bool:
    """Whether the intervals of two measurements say so."""
    return bool(row["ratio_hi"] < other["ratio_lo"])


def _beside(row: Row, other: Row) -> str:
    """How one point stands to another, where less latency and more accuracy are better."""
    if row["ratio"] <= other["ratio"] and row["accuracy"] >= other["accuracy"]:
        return "beats it in both"
    if row["ratio"] >= other["ratio"] and row["accuracy"] <= other["accuracy"]:
        return "is beaten by it in both"
    return "is faster" if row["ratio"] < other["ratio"] else "is more accurate"


def _structured(told: _Told) -> Said:
    full = told.done.get(REFERENCE)
    if full is None:
        return
    for row in told.of("structured"):
        macs, time = row["macs"] / full["macs"], row["ratio"] / full["ratio"]
        text = f"{row['name']} takes {macs:.2f} of the multiply-accumulates and {time:.2f} of the fp32 latency"
        verdict = "" if _faster(row, full) else ", and nothing is gained"
        yield "structured layers", f"{text} in the same runtime, {told.lost(row)}{verdict}."


def _mixed(told: _Told, fronts: Mapping[str, Sequence[str]]) -> Said:
    rest = [r for r in told.done.values() if r["group"] != "mixed"]
    for row in told.of("mixed"):
        rivals = [r for r in rest if r["ratio"] <= row["ratio"]]
        text = f"The search for {row['name'].partition('-')[2]} found {told.named(row)}"
        if rivals:
            best = max(rivals, key=lambda r: r["accuracy"])
            text += f"; the best classic method that is as fast is {told.named(best)}"
        else:
            text += "; no classic method is as fast"
        yield "mixed policies", f"{text}. It is {'' if row['name'] in fronts['latency'] else 'not '}on the front."


def _memory(told: _Told) -> Said:
    full = told.done.get(REFERENCE)
    near = [r for r in told.done.values() if told.near(r)]
    if full is None or not near:
        return
    words = []
    for key, what in (("act_bytes", "live activations"), ("weight_bytes", "weights at the bits asked for")):
        least = min(near, key=lambda r: (r[key], -r["accuracy"]))
        words.append(f"{what} of {least[key] / 1e3:.0f} kB instead of {full[key] / 1e3:.0f} kB ({least['name']})")
    yield "memory", f"The least within one point of accuracy: {'; '.join(words)}."
    grown = sorted((r["added_bytes"], r["name"]) for r in told.done.values() if r["added_bytes"])
    if len(grown) > 1:
        (least, name), (most, other) = grown[0], grown[-1]
        text = f"Loading and running a file adds {least / 1e6:.0f} MB ({name}) to {most / 1e6:.0f} MB ({other})"
        yield "memory", f"{text} to a process."


def _targets(told: _Told, target: str) -> Said:
    rows = list(told.done.values())
    for name in (axis for axis in rows[0]["costs"] if axis not in HERE):
        able = [r for r in rows if r["on"][name]["runs"]]
        text = f"{len(able)} of {len(rows)} networks run there as they were trained"
        if unable := [r for r in rows if not r["on"][name]["runs"]]:
            text += f"; not {', '.join(r['name'] for r in unable)} ({unable[0]['on'][name]['why']})"
        yield name, text + "."
        same = [r for r in able if r["group"] == "quantization"]
        if len(same) > 1 and len({r["costs"][name] for r in same}) == 1:
            which = ", ".join(r["name"] for r in same)
            yield name, f"Fewer bits bring no cycles: {which} all take {same[0]['costs'][name]:.3f} of the original's."
        for row in (r for r in rows if r["group"] == "structured" and r["on"][name]["ratio"]):
            here, there = row["on"][name]["ratio"], row["ratio"] / told.done.get(REFERENCE, {"ratio": 1.0})["ratio"]
            yield name, f"{row['name']}: {here:.2f} of the cycles here, {there:.2f} of the fp32 latency on {target}."


def _verdict(told: _Told, fronts: Mapping[str, Sequence[str]], target: str) -> Said:
    rows, words = list(told.done.values()), []
    for axis in fronts:
        good = [r for r in rows if r["costs"][axis] and told.near(r)]
        if good:
            best = min(good, key=lambda r: (r["costs"][axis], -r["accuracy"]))
            words.append(f"{_axis(axis, target)}: {best['name']}")
    if words:
        yield "verdict", f"The cheapest within one point of accuracy, by {'; by '.join(words)}."
    macs = [r["macs"] for r in rows]
    for axis in fronts:
        pairs = [(m, r["costs"][axis]) for m, r in zip(macs, rows, strict=True) if r["costs"][axis]]
        if len(pairs) > 3 and (rank := _spearman(pairs)) is not None:
            text = f"Multiply-accumulates and {_axis(axis, target)} agree on the order of {len(pairs)} points"
            yield "verdict", f"{text} with a rank correlation of {rank:.2f}."


def _axis(axis: str, target: str) -> str:
    return HERE.get(axis, f"cycles on {axis}").format(target)


def _spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Rank correlation, equal values sharing their mean rank; None where one side is constant."""
    columns = np.array(pairs, np.float64).T
    ranks = np.array([[np.sum(c < v) + np.sum(c <= v) for v in c] for c in columns], np.float64)
    if (np.ptp(ranks, axis=1) == 0).any():
        return None
    first, second = ranks
    return float(np.corrcoef(first, second)[0, 1])
