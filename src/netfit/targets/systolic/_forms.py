"""Closed forms: cycles and moves of one matrix product on a systolic array.

Every function takes numbers or int64 arrays that broadcast, and returns arrays no larger than what they depend on, so
that a sweep over rows x columns divides once per row and once per column instead of once per array.

C[m, n] = A[m, k] B[k, n]. A *pass* is one tile that stays in the array while the other operand streams by.
Weight-stationary keeps (k on rows, n on columns) and streams the m rows of A in blocks of the accumulators' size;
input-stationary is the same with A and B in each other's place; output-stationary keeps (m on rows, n on columns)
and streams k. The native forms count until the whole array has drained and are proved by the register-level
simulator beside this file.

"On the Difficulty of Designing Processor Arrays for Deep Neural Networks" (2020) is the source of the
weight-stationary machine; its exact counts are `camuy`. `scalesim` are the counts of SCALE-Sim 3.
"""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Flow", "Loads", "ceil_div", "flow", "loads"]

Int = Any  # int or int64 array


class Loads(NamedTuple):
    """Words that cross the border of the array."""

    act: Int
    weight: Int
    result: Int
    accumulator: Int


class Flow(NamedTuple):
    """What goes on in the array.

    Attributes:
        cycles: from the first operand to the last result, memory never waited for.
        stream: cycles in which the streaming operand enters.
        load: cycles in which the array does nothing but take a tile in, or results out.
        pe_steps: multiply-accumulates of all elements, useful or not.
        act_hops: activations that an element takes from its neighbour or FIFO.
        weight_hops: the same of weights.
        sum_hops: the same of sums.
    """

    cycles: Int
    stream: Int
    load: Int
    pe_steps: Int
    act_hops: Int
    weight_hops: Int
    sum_hops: Int


def ceil_div(a: Int, b: Int) -> Int:
    """Smallest whole number not below a / b."""
    return -(-a // b)


def loads(m: Int, n: Int, k: Int, rows: Int, cols: Int, block: Int, dataflow: str, compat: str | None) -> Loads:
    """Operand loads and result stores; ``block`` is the usable half of the accumulators."""
    if dataflow == "os":
        return Loads(m * k * ceil_div(n, cols), k * n * ceil_div(m, rows), m * n, 0 * m)
    if dataflow == "is":
        weight, act, result, sums = loads(n, m, k, rows, cols, block, "ws", compat)
        return Loads(act, weight, result, sums)
    sums = m * n * ceil_div(k, rows)
    if compat == "scalesim":  # no accumulators: every partial sum is written to the buffer
        return Loads(m * k * ceil_div(n, cols), k * n, sums, 0 * m)
    return Loads(m * k * ceil_div(n, cols), k * n * ceil_div(m, block), m * n, sums)


def flow(
    m: Int, n: Int, k: Int, rows: Int, cols: Int, block: Int, dataflow: str, serial: bool, compat: str | None
) -> Flow:
    """Cycles and moves of one product."""
    if compat == "camuy":
        return _camuy(m, n, k, rows, cols, block)
    if compat == "scalesim":
        return _scalesim(m, n, k, rows, cols, dataflow)
    if dataflow == "os":
        return _output_stationary(m, n, k, rows, cols, serial)
    if dataflow == "is":
        found = _stationary(n, m, k, rows, cols, block, serial)
        return found._replace(act_hops=found.weight_hops, weight_hops=found.act_hops)
    return _stationary(m, n, k, rows, cols, block, serial)


def _stationary(m: Int, n: Int, k: Int, rows: Int, cols: Int, block: Int, serial: bool) -> Flow:
    tiles = ceil_div(n, cols) * ceil_div(k, rows)
    stream = m * tiles
    steps = stream * (rows * cols)
    sums = stream * (rows * cols - cols)  # the zeros that enter the top row are not counted
    if not serial:
        return Flow(stream + (rows + cols - 1), stream, 0 * m, steps, steps, 0 * m, sums)
    passes = tiles * ceil_div(m, block)
    cycles = stream + passes * (2 * rows + cols - 2) + 1
    return Flow(cycles, stream, passes * rows, steps, steps, passes * (cols * rows * (rows - 1) // 2), sums)


def _output_stationary(m: Int, n: Int, k: Int, rows: Int, cols: Int, serial: bool) -> Flow:
    passes = ceil_div(m, rows) * ceil_div(n, cols)
    stream = passes * k
    steps = stream * (rows * cols)
    if serial:
        cycles = passes * (k + 2 * rows + cols - 2)
        return Flow(cycles, stream, passes * rows, steps, steps, steps, passes * (cols * rows * (rows - 1) // 2))
    # A column hands out one result a cycle, so a pass lasts at least as long as a column has results.
    cycles = (passes - 1) * np.maximum(k, rows) + (k + rows + cols - 1)
    return Flow(cycles, stream, 0 * m, steps, steps, steps, 0 * m)


def _scalesim(m: Int, n: Int, k: Int, rows: Int, cols: Int, dataflow: str) -> Flow:
    """SCALE-Sim 3 loads a tile, streams and drains, one pass after the other; it has no row blocks.

    It counts no moves between elements: these are those of the native machine of that dataflow.
    """
    if dataflow == "os":
        found = _output_stationary(m, n, k, rows, cols, serial=False)
        passes = ceil_div(m, rows) * ceil_div(n, cols)
        return found._replace(cycles=passes * (k + rows + cols - 2) - 1)
    if dataflow == "is":
        found = _scalesim(n, m, k, rows, cols, "ws")
        return found._replace(act_hops=found.weight_hops, weight_hops=found.act_hops)
    found = _stationary(m, n, k, rows, cols, block=m, serial=True)
    return found._replace(cycles=found.cycles - 2)


def _camuy(m: Int, n: Int, k: Int, rows: Int, cols: Int, block: Int) -> Flow:
    """The reference's own cycles, its one-cycle quirk for one-row blocks and its cut-off move counts included."""
    wide, deep, blocks = ceil_div(n, cols), ceil_div(k, rows), ceil_div(m, block)
    last_rows, last_cols = m - block * (blocks - 1), n - cols * (wide - 1)
    stream = m * wide * deep
    # Either the last tile drains last, or a wider one before it does.
    drained = stream + last_cols - (last_rows == 1)
    wider = stream - last_rows * deep + cols - (last_rows == 1)
    earlier = block * (blocks - 1) * wide * deep - block * deep + cols - (block == 1)
    drained = np.where(wide > 1, np.maximum(drained, wider), drained)
    drained = np.where((wide > 1) & (blocks > 1), np.maximum(drained, earlier), drained)
    cycles = rows + 6 + drained
    done = cycles - 5  # element (x, y) has done min(stream, done - x - y) steps when the last result is out
    steps = _triangle(done, rows, cols) - _triangle(done - stream, rows, cols)
    top = _triangle(done, 1, cols) - _triangle(done - stream, 1, cols)
    return Flow(cycles, stream, 0 * m, steps, steps, 0 * m, steps - top)


def _triangle(n: Int, rows: Int, cols: Int) -> Int:
    """Sum of max(0, n - x - y) over x < cols, y < rows, by tetrahedral numbers (inclusion and exclusion)."""
    n = np.asarray(n)
    near = np.minimum(n, rows + cols)  # beyond that every term grows by one: keeps the cubes small

    def corner(s: Int) -> Int:
        s = np.maximum(s, 0)
        return s * (s + 1) * (s + 2) // 6

    total = corner(near) - corner(near - cols) - corner(near - rows) + corner(near - rows - cols)
    return total + (n - near) * (rows * cols)
