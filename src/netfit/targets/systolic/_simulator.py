"""The array register by register: slow, small, and the proof of the closed forms.

Every cycle all registers take their next value at once, each from its neighbour's value before the clock edge.
Nothing here knows a formula for cycles or moves: both are counted while the machine runs, and it stops when the last
result has left.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

from ._config import SystolicConfig

__all__ = ["Simulation", "simulate"]

Array = NDArray[np.int64]
MAX_STEPS = 10_000_000  # of all elements; minutes of simulation


@dataclass
class Simulation:
    """What the machine did.

    Attributes:
        out: the product.
        cycles: clock cycles until the last result left the array.
        moves: counted moves: ``act_loads``, ``weight_loads``, ``result_stores``, ``accum_writes``, ``pe_steps``,
            ``act_hops``, ``weight_hops``, ``sum_hops``.
    """

    out: Array
    cycles: int = 0
    moves: dict[str, int] = field(default_factory=dict)

    def _count(self, what: str, n: Any) -> None:
        self.moves[what] = self.moves.get(what, 0) + int(n)


@dataclass(frozen=True)
class _Pass:
    """One stationary tile: where its block of rows, its columns and its part of the sums begin."""

    row: int
    col: int
    deep: int
    length: int  # rows that stream by
    last: bool  # its sums are the results


def simulate(a: Any, w: Any, config: SystolicConfig) -> Simulation:
    """Multiply two integer matrices on the array.

    Args:
        a: activations, (m, k).
        w: weights, (k, n).
        config: the array; precision, clock and memory are not simulated.

    Raises:
        ConfigError: the matrices do not fit together, or are too large to be simulated.

    >>> done = simulate([[1, 2]], [[3], [4]], SystolicConfig(2, 2))
    >>> done.out.tolist(), done.cycles
    ([[11]], 4)
    """
    a, w = np.asarray(a), np.asarray(w)
    if a.ndim != 2 or w.ndim != 2 or a.shape[1] != w.shape[0] or 0 in (*a.shape, w.shape[1]):
        raise ConfigError(f"simulate: shapes {a.shape} and {w.shape}; allowed are (m, k) and (k, n), sizes from 1")
    if a.dtype.kind not in "iu" or w.dtype.kind not in "iu":
        raise ConfigError(f"simulate: dtypes {a.dtype} and {w.dtype}; allowed are integers")
    a, w = a.astype(np.int64), w.astype(np.int64)
    tiles = -(-w.shape[1] // config.cols) * -(-a.shape[1] // config.rows)
    if a.shape[0] * tiles * config.rows * config.cols > MAX_STEPS:
        raise ConfigError(f"simulate: {a.shape} x {w.shape} is too large; cost() counts any size in closed form")
    if config.dataflow == "os":
        return _output_stationary(a, w, config)
    if config.dataflow == "ws":
        return _weight_stationary(a, w, config)
    done = _weight_stationary(w.T, a.T, config)  # the same machine with the operands in each other's place
    names = {"act_loads": "weight_loads", "weight_loads": "act_loads", "act_hops": "weight_hops"}
    names["weight_hops"] = "act_hops"
    return Simulation(done.out.T, done.cycles, {names.get(key, key): n for key, n in done.moves.items()})


def _weight_stationary(a: Array, w: Array, config: SystolicConfig) -> Simulation:
    (m, k), n = a.shape, w.shape[1]
    high, wide, block = config.rows, config.cols, config.accum_rows // 2
    passes = [
        _Pass(row, col, deep, min(block, m - row), deep + high >= k)
        for row in range(0, m, block)
        for col in range(0, n, wide)
        for deep in range(0, k, high)
    ]
    done = Simulation(np.zeros((m, n), np.int64))
    tiles = [_tile(w, p, (high, wide), done) for p in passes]
    if config.weight_load == "overlapped":
        _stream(a, passes, tiles, config, done)
        return done
    for i, (one, tile) in enumerate(zip(passes, tiles, strict=True)):
        _stream(a, [one], [_shift_in(tile, done)], config, done)
        if i < len(passes) - 1:
            done.cycles -= 1  # the last sum leaves while the next tile begins to enter
    return done


def _shift_in(tile: Array, done: Simulation) -> Array:
    """The weight registers after a tile was shifted in from above, its last row first."""
    weight, held = np.zeros_like(tile), np.zeros(tile.shape, bool)
    for row in tile[::-1]:
        done._count("weight_hops", held[:-1].sum())
        weight[1:], held[1:] = weight[:-1].copy(), held[:-1].copy()
        weight[0], held[0] = row, True
        done.cycles += 1
    return weight


def _stream(a: Array, passes: list[_Pass], tiles: list[Array], config: SystolicConfig, done: Simulation) -> None:
    """Let all passes stream through the array back to back; the first tile is there already."""
    shape = high, wide = config.rows, config.cols
    order = [(i, p.row + r, r == 0) for i, p in enumerate(passes) for r in range(p.length)]
    act, sums, weight = (np.zeros(shape, np.int64) for _ in range(3))
    busy, swap = np.zeros(shape, bool), np.zeros(shape, bool)
    # The fetcher fills the second register right after a swap; which tile is next, each element's counter says.
    tile_of = np.zeros(shape, np.int64)
    stack, spare = np.stack(tiles), tiles[0].copy()
    y, x = np.indices(shape)
    left = np.zeros(wide, np.int64)  # results each column has handed out
    cycle = 0
    while left[-1] < len(order):
        # Below the array: what the bottom row held before this clock edge goes to the accumulators.
        for col in np.flatnonzero(busy[-1]):
            _accumulate(sums[-1, col], order[left[col]], passes, int(col), done)
            left[col] += 1
        done.cycles += 1
        if left[-1] == len(order):
            break
        spare = np.where(swap, stack[np.minimum(tile_of, len(tiles) - 1), y, x], spare)
        act[:, 1:], busy[:, 1:], swap[:, 1:] = act[:, :-1].copy(), busy[:, :-1].copy(), swap[:, :-1].copy()
        for row in range(high):  # each FIFO runs one cycle behind the one above it
            act[row, 0], busy[row, 0], swap[row, 0] = _feed(a, order, cycle - row, row, passes, done)
        weight, tile_of = np.where(swap, spare, weight), tile_of + swap
        above = np.vstack([np.zeros((1, wide), np.int64), sums[:-1]])
        sums = np.where(busy, above + act * weight, 0)
        done._count("pe_steps", busy.sum())
        done._count("act_hops", busy.sum())
        done._count("sum_hops", busy[1:].sum())
        cycle += 1


def _tile(w: Array, one: _Pass, shape: tuple[int, int], done: Simulation) -> Array:
    part = w[one.deep : one.deep + shape[0], one.col : one.col + shape[1]]
    done._count("weight_loads", part.size)
    tile = np.zeros(shape, np.int64)
    tile[: part.shape[0], : part.shape[1]] = part
    return tile


def _feed(
    a: Array, order: list[tuple[int, int, bool]], step: int, row: int, passes: list[_Pass], done: Simulation
) -> tuple[int, bool, bool]:
    """What one FIFO hands to the array: value, whether it is one, whether a new tile begins with it."""
    if not 0 <= step < len(order):
        return 0, False, False
    i, source, first = order[step]
    deep = passes[i].deep + row
    if deep >= a.shape[1]:
        return 0, True, first  # rows beyond the sum's length get zeros that nobody loads
    done._count("act_loads", 1)
    return int(a[source, deep]), True, first


def _accumulate(value: Any, step: tuple[int, int, bool], passes: list[_Pass], col: int, done: Simulation) -> None:
    i, row, _ = step
    place = passes[i].col + col
    if place >= done.out.shape[1]:
        return
    done.out[row, place] += value
    done._count("accum_writes", 1)
    if passes[i].last:
        done._count("result_stores", 1)


def _output_stationary(a: Array, w: Array, config: SystolicConfig) -> Simulation:
    (m, k), n = a.shape, w.shape[1]
    high, wide = shape = config.rows, config.cols
    passes = [(row, col) for row in range(0, m, high) for col in range(0, n, wide)]
    serial = config.weight_load == "serial"
    # One result leaves a column each cycle, so passes shorter than a column are spaced by bubbles.
    pace = k + high + wide - 2 + high if serial else max(k, high)
    done = Simulation(np.zeros((m, n), np.int64))
    act, weight, sums, step = (np.zeros(shape, np.int64) for _ in range(4))
    busy = np.zeros(shape, bool)
    results = np.zeros(shape, np.int64)  # passes each element has finished
    cycle = left = 0
    while left < len(passes) * high * wide:
        if serial:
            left += _shift_out(cycle, pace, results, sums, passes, done)
        else:
            ended = busy & (step == k - 1)
            assert ended.sum(0).max() <= 1, "two results on the bus of one column"
            for y, x in np.argwhere(ended):
                _store(passes[results[y, x] - 1], y, x, sums[y, x], done)
                left += 1
        done.cycles += 1
        if left == len(passes) * high * wide:
            break
        act[:, 1:], weight[1:], busy[:, 1:], step[:, 1:] = (
            act[:, :-1].copy(), weight[:-1].copy(), busy[:, :-1].copy(), step[:, :-1].copy()
        )  # fmt: skip
        for y in range(high):
            act[y, 0], busy[y, 0], step[y, 0] = _operand(a, 0, cycle - y, y, pace, passes, done)
        for x in range(wide):
            weight[0, x] = _operand(w.T, 1, cycle - x, x, pace, passes, done)[0]
        sums = np.where(busy, np.where(step == 0, 0, sums) + act * weight, sums)
        results += busy & (step == k - 1)
        for what in ("pe_steps", "act_hops", "weight_hops"):
            done._count(what, busy.sum())
        cycle += 1
    return done


def _operand(
    source: Array, side: int, at: int, lane: int, pace: int, passes: list[tuple[int, int]], done: Simulation
) -> tuple[int, bool, int]:
    """What enters one row (side 0) or column (side 1): value, whether it is one, position in the sum."""
    number, step = divmod(at, pace)
    if not (0 <= number < len(passes) and step < source.shape[1]):
        return 0, False, 0
    row = passes[number][side] + lane
    if row >= len(source):
        return 0, True, step
    done._count(("act_loads", "weight_loads")[side], 1)
    return int(source[row, step]), True, step


def _shift_out(
    cycle: int, pace: int, results: Array, sums: Array, passes: list[tuple[int, int]], done: Simulation
) -> int:
    """One cycle of the shift register that the sums form between passes; returns how many sums left."""
    high, wide = sums.shape
    number, at = divmod(cycle, pace)
    shift = at - (pace - high) if number < len(passes) else -1
    if shift < 0:
        return 0
    assert (results == number + 1).all(), "a result leaves before it is finished"
    for x in range(wide):
        _store(passes[number], high - 1 - shift, x, sums[-1, x], done)
    done._count("sum_hops", wide * (high - 1 - shift))
    sums[1:] = sums[:-1].copy()
    return wide


def _store(origin: tuple[int, int], y: int, x: int, value: Any, done: Simulation) -> None:
    row, col = origin[0] + y, origin[1] + x
    if row < done.out.shape[0] and col < done.out.shape[1]:
        done.out[row, col] = value
        done._count("result_stores", 1)
