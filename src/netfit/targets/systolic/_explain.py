"""Why a layer is slow on an array: the cycles by cause, and a sentence about the largest loss."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._config import SystolicConfig
from ._cost import GemmCost, Products
from ._layers import Layers

__all__ = ["Explanation", "explain", "parts"]


@dataclass(frozen=True)
class Explanation:
    """Where the cycles of one operator go.

    Attributes:
        name: site of the operator.
        kind: its kind.
        utilization: useful part of all multiplications the array could have done.
        shares: part of the cycles by cause: ``compute``, ``folds``, ``fill_drain``, ``load``, ``memory``; sum 1.
        cause: the largest loss, or ``"none"`` when the array is used to nine tenths.
        text: what it is and what would help.
    """

    name: str
    kind: str
    utilization: float
    shares: Mapping[str, float]
    cause: str
    text: str


def parts(layers: Layers, cost: GemmCost, config: SystolicConfig) -> dict[str, NDArray[np.float64]]:
    """Cycles of each operator by cause; they add up to all of its cycles."""
    cycles, stream, load, stall = (
        layers.per_op(x) for x in (cost.cycles, cost.stream_cycles, cost.load_cycles, cost.stall_cycles)
    )
    ideal = layers.per_op(cost.macs) / (config.rows * config.cols)
    drain = np.maximum(0.0, cycles - stream - load - stall)  # SCALE-Sim's 1x1 array is a cycle short of its stream
    return {
        "compute": ideal,
        "folds": np.maximum(0.0, stream - ideal),
        "fill_drain": drain,
        "load": load,
        "memory": stall,
    }


def explain(layers: Layers, cost: GemmCost, config: SystolicConfig) -> tuple[Explanation, ...]:
    """One explanation per operator that multiplies; the sentence is about the longest of its products."""
    cycles, found = layers.per_op(cost.cycles), parts(layers, cost, config)
    out = []
    for i in np.flatnonzero(cycles):
        shares = {cause: float(part[i] / cycles[i]) for cause, part in found.items()}
        losses = {cause: share for cause, share in shares.items() if cause != "compute"}
        cause = "none" if shares["compute"] >= 0.9 else max(losses, key=lambda key: losses[key])
        mine = np.flatnonzero(layers.owner == i)
        longest = int(mine[np.argmax(cost.cycles[mine])])
        text = _sentence(cause, shares, _sizes(layers.products, longest), config)
        used = min(1.0, shares["compute"])
        out.append(Explanation(layers.names[i], layers.kinds[i], used, shares, cause, text))
    return tuple(out)


def _sizes(p: Products, at: int) -> dict[str, int]:
    return {key: int(getattr(p, key)[at]) for key in ("m", "n", "k", "groups")}


def _sentence(cause: str, shares: Mapping[str, float], size: dict[str, int], config: SystolicConfig) -> str:
    if cause == "none":
        return f"{shares['compute']:.0%} of the array is used"
    lost = f"{shares[cause]:.0%} of the cycles: "
    if cause == "folds":
        return lost + _folds(size, config)
    if cause == "fill_drain":
        streams = {"ws": size["m"], "os": size["k"], "is": size["n"]}[config.dataflow]
        again = f" for each of {size['groups']} groups" if size["groups"] > 1 and config.group_mode == "serial" else ""
        depth = config.rows + config.cols - 1
        return f"{lost}{depth} to fill and drain{again} while only {streams} rows stream; larger batches help"
    if cause == "load":
        return f"{lost}tiles are shifted through {config.rows} rows before or after each pass; weight_load='overlapped'"
    return f"{lost}waits for {config.dram_bytes_per_s:.3g} bytes/s; fewer bits, a larger buffer or more bandwidth help"


def _folds(size: dict[str, int], config: SystolicConfig) -> str:
    """Which rows and columns of the array have nothing to do."""
    axes = {"ws": ("k", "n"), "os": ("m", "n"), "is": ("k", "m")}[config.dataflow]
    said = []
    for axis, length, lanes in zip(axes, (config.rows, config.cols), ("rows", "columns"), strict=True):
        last = (size[axis] - 1) % length + 1
        if size[axis] < length:
            said.append(f"{size[axis]} of {length} {lanes} work")
        elif last < length:
            said.append(f"the last of {-(-size[axis] // length)} tiles uses {last} of {length} {lanes}")
    text = " and ".join(said)
    if size["groups"] > 1 and config.group_mode == "serial":
        return f"{text}, one of {size['groups']} groups at a time; group_mode='block_diagonal' packs several"
    return f"{text}; channel counts that are multiples of the array, or a smaller array, fit better"
