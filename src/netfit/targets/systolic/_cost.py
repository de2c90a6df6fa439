"""Matrix products to counters: groups packed, repetitions counted, energy weighed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netfit.errors import ConfigError

from ._bandwidth import Memory, traffic
from ._config import Compat, SystolicConfig, check_choice
from ._forms import Flow, Int, Loads, ceil_div, flow, loads

__all__ = ["GemmCost", "Products", "check_compat", "evaluate", "gemm_cost", "summed", "words"]

LARGEST = 1 << 62


@dataclass(frozen=True, eq=False)
class Products:
    """Matrix products as int64 arrays of one shape.

    Attributes:
        m: rows of the moving operand.
        n: columns of the result of one group.
        k: length of each sum.
        times: how many products run one after another.
        groups: independent parts of each.
        weight_bits: width of the weights, or None for the array's own.
        act_bits: width of activations and results, likewise.
    """

    m: Int
    n: Int
    k: Int
    times: Int = 1
    groups: Int = 1
    weight_bits: Int | None = None
    act_bits: Int | None = None


@dataclass(frozen=True, eq=False)
class GemmCost:
    """All counters of matrix products on an array; words, cycles, bytes and joules.

    Attributes:
        cycles: from the first operand to the last result, memory stalls included.
        stream_cycles: of these, cycles in which operands stream (the minimum for these tiles).
        load_cycles: cycles that do nothing but shift a tile in or results out.
        stall_cycles: cycles that wait for memory.
        macs: useful multiply-accumulates.
        pe_steps: multiply-accumulates of all elements, useful or not.
        act_loads: activations read from the buffer.
        weight_loads: weights read from the buffer.
        result_stores: results written to the buffer.
        accum_writes: partial sums written to the accumulators.
        act_hops: activations taken from a neighbour or a FIFO.
        weight_hops: weights taken from a neighbour or a FIFO.
        sum_hops: sums taken from a neighbour.
        utilization: useful part of all multiplications the array could have done.
        buffer_bytes: bytes of all loads and stores.
        dram_bytes: bytes from and to memory; 0 where no memory is modelled.
        energy_j: joules of all moves.
    """

    cycles: Any
    stream_cycles: Any
    load_cycles: Any
    stall_cycles: Any
    macs: Any
    pe_steps: Any
    act_loads: Any
    weight_loads: Any
    result_stores: Any
    accum_writes: Any
    act_hops: Any
    weight_hops: Any
    sum_hops: Any
    utilization: Any
    buffer_bytes: Any
    dram_bytes: Any
    energy_j: Any

    @property
    def inter_pe(self) -> Any:
        """Moves between elements."""
        return self.act_hops + self.weight_hops + self.sum_hops

    @property
    def intra_pe(self) -> Any:
        """Register reads: three operands a step."""
        return 3 * self.pe_steps


def gemm_cost(
    m: ArrayLike, n: ArrayLike, k: ArrayLike, config: SystolicConfig, compat: Compat | None = None
) -> GemmCost:
    """Count products of (m x k) activations by (k x n) weights.

    Args:
        m: rows of the activations; like n and k an integer or an array, all broadcast.
        n: columns of the weights.
        k: length of each sum.
        config: the array.
        compat: count as ``"camuy"`` or ``"scalesim"`` does.

    Raises:
        ConfigError: a size below one, no whole number, or so large that a counter would overflow.

    >>> cost = gemm_cost(25, 10, 69, SystolicConfig(rows=7, cols=13, accum_rows=128), compat="camuy")
    >>> int(cost.cycles), int(cost.intra_pe), int(cost.inter_pe)
    (273, 68250, 42250)
    """
    check_compat(config, compat)
    sizes = np.broadcast_arrays(*(_sizes(name, value) for name, value in (("m", m), ("n", n), ("k", k))))
    return evaluate(Products(*sizes), config, compat)


def _sizes(name: str, value: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ConfigError(f"{name} = {value!r:.60} of a matrix product: allowed are whole numbers from 1")
    if array.size and array.min() < 1:
        raise ConfigError(f"{name} = {array.min()} of a matrix product: allowed are whole numbers from 1")
    return array.astype(np.int64)


def check_compat(config: SystolicConfig, compat: str | None) -> None:
    """Refuse what the reference cannot do, so that nobody takes its numbers for those of another machine."""
    if compat is None:
        return
    check_choice("compat", compat, ("camuy", "scalesim"))
    if config.dram_bytes_per_s is not None:
        raise ConfigError(f"dram_bytes_per_s with compat={compat!r}: the reference waits for no memory; leave one away")
    if config.group_mode != "serial":
        raise ConfigError(f"group_mode={config.group_mode!r} with compat={compat!r}: allowed is 'serial'")
    if compat == "camuy" and (config.dataflow, config.weight_load) != ("ws", "overlapped"):
        found = f"dataflow={config.dataflow!r}, weight_load={config.weight_load!r}"
        raise ConfigError(f"{found} with compat='camuy': allowed are 'ws' and 'overlapped'")


def check_overflow(products: Products, rows: int, cols: int) -> None:
    """Refuse products whose counters would not fit into 64 bits (``rows`` and ``cols``: the largest array)."""
    m, n, k, times, groups = (
        float(np.max(x)) for x in (products.m, products.n, products.k, products.times, products.groups)
    )
    # Every counter is below four times the steps of all elements when each axis is rounded up to full tiles, plus
    # the fill and drain of tiles of one row.
    if 4.0 * (m + rows) * (n + cols) * (k + rows) * max(rows, cols) * times * groups > LARGEST:
        raise ConfigError(f"m, n, k = {m:.0f}, {n:.0f}, {k:.0f}: too large; counters must stay below 2**62")


def evaluate(products: Products, config: Any, compat: str | None) -> GemmCost:
    """Counters of products on an array: a `SystolicConfig`, or its fields with arrays for numbers."""
    return summed(products, config, *words(products, config, compat))


def words(p: Products, config: Any, compat: str | None) -> tuple[Loads, Flow, Memory]:
    """What moves, before it is known how wide a word is, except to the memory outside."""
    rows, cols, block, dataflow = config.rows, config.cols, config.accum_rows // 2, config.dataflow
    check_overflow(p, int(np.max(rows)), int(np.max(cols)))
    serial = config.weight_load == "serial"
    packed = _packed(p, rows, cols, dataflow) if config.group_mode == "block_diagonal" else 1
    runs = ceil_div(p.groups, packed) * p.times
    n, k = (p.n if dataflow == "is" else p.n * packed), p.k * packed
    m = p.m * packed if dataflow == "is" else p.m
    moved = Loads(*(x * (p.times * p.groups) for x in loads(p.m, p.n, p.k, rows, cols, block, dataflow, compat)))
    inside = Flow(*(x * runs for x in flow(m, n, k, rows, cols, block, dataflow, serial, compat)))
    if config.dram_bytes_per_s is None:
        return moved, inside, Memory(0.0 * runs, 0 * runs)
    # A packed tile is zero off its diagonal, and the last one may hold fewer groups than it could.
    filled = p.groups / (ceil_div(p.groups, packed) * packed)
    act_bits, weight_bits = (bits * filled for bits in _widths(p, config))
    one = traffic(m, n, k, rows, cols, block, dataflow, serial, act_bits, weight_bits,
                  config.buffer_bytes, config.dram_bytes_per_s / config.clock_hz, 1 / packed)  # fmt: skip
    return moved, inside, Memory(one.bytes * runs, one.stall_cycles * runs)


def summed(p: Products, config: Any, moved: Loads, inside: Flow, memory: Memory) -> GemmCost:
    """Put the parts together: bytes and energy from words and widths."""
    act_bits, weight_bits = _widths(p, config)
    buffer_bytes = (moved.weight * weight_bits + (moved.act + moved.result) * act_bits) / 8
    sums, e = config.accum_bits, config.energy
    registers = inside.pe_steps * ((weight_bits + act_bits + sums) / 8)
    hops = (inside.act_hops * act_bits + inside.weight_hops * weight_bits + inside.sum_hops * sums) / 8
    units = e.buffer * buffer_bytes + e.inter_pe * hops + e.register * registers
    units = units + e.accumulator * moved.accumulator * sums / 8 + e.dram * memory.bytes
    cycles = inside.cycles + memory.stall_cycles
    macs = p.m * p.n * p.k * p.times * p.groups
    return GemmCost(
        cycles, inside.stream, inside.load, memory.stall_cycles, macs, inside.pe_steps, moved.act, moved.weight,
        moved.result, moved.accumulator, inside.act_hops, inside.weight_hops, inside.sum_hops,
        macs / (cycles * (config.rows * config.cols * 1.0)), buffer_bytes, memory.bytes, units * e.joules,
    )  # fmt: skip


def _widths(p: Products, config: Any) -> tuple[Any, Any]:
    """Bits of activations and weights: the layer's own, else the array's."""
    act = config.act_bits if p.act_bits is None else p.act_bits
    return act, config.weight_bits if p.weight_bits is None else p.weight_bits


def _packed(p: Products, rows: Int, cols: Int, dataflow: str) -> Int:
    """How many groups share the array: as many as fit along its diagonal."""
    across = p.m if dataflow == "is" else p.n
    return np.maximum(1, np.minimum(p.groups, np.minimum(rows // p.k, cols // across)))
