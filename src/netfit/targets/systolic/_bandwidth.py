"""Waiting for memory: cycles in which a pass has computed and its operands have not arrived.

A pass computes for as long as its rows stream, while its operands (and, when it finishes sums, its results) travel:
it stalls for what the transfer takes longer. Passes differ only in whether they are full or the last along an axis,
and in whether an operand is there already, so the sum over all of them has at most 18 terms.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ._forms import Int, ceil_div

__all__ = ["Memory", "traffic"]


class Memory(NamedTuple):
    """What a layer demands of the memory outside: bytes in all, and cycles waited for them."""

    bytes: Any
    stall_cycles: Any


class _Blocks(NamedTuple):
    """The blocks of one axis that are alike: their size, how many, whether they are the first, or the last."""

    size: Int
    count: Int
    first: bool
    last: bool | Int


def _axis(length: Int, block: Int) -> list[_Blocks]:
    blocks = ceil_div(length, block)
    rest = length - block * (blocks - 1)
    return [
        _Blocks(np.minimum(length, block), 1, True, blocks == 1),
        _Blocks(block, np.maximum(blocks - 2, 0), False, False),
        _Blocks(rest, blocks > 1, False, True),
    ]


def traffic(
    m: Int, n: Int, k: Int, rows: Int, cols: Int, block: Int, dataflow: str, serial: bool,
    act_bits: Any, weight_bits: Any, buffer_bytes: float | None, bytes_per_cycle: float, dense: Any = 1.0,
) -> Memory:  # fmt: skip
    """Bytes from and to memory, and the cycles that the array waits for them.

    An operand that fits into the buffer as a whole travels once; one that does not, in every pass.

    Args:
        m: rows of the result; with n and k and the array as in `flow`.
        act_bits: width of activations and results.
        weight_bits: width of weights.
        buffer_bytes: size of the buffer; None holds every operand.
        bytes_per_cycle: bandwidth.
        dense: share of the stationary tile that is not padding between packed groups.
    """
    if dataflow == "is":
        return _traffic(n, m, k, rows, cols, block, serial, weight_bits, act_bits, act_bits,
                        buffer_bytes, bytes_per_cycle, dense)  # fmt: skip
    if dataflow == "os":
        return _output_traffic(m, n, k, rows, cols, serial, act_bits, weight_bits,
                               buffer_bytes, bytes_per_cycle, dense)  # fmt: skip
    return _traffic(m, n, k, rows, cols, block, serial, act_bits, weight_bits, act_bits,
                    buffer_bytes, bytes_per_cycle, dense)  # fmt: skip


def _traffic(
    m: Int, n: Int, k: Int, rows: Int, cols: Int, block: Int, serial: bool,
    stream_bits: Any, tile_bits: Any, result_bits: Any, buffer_bytes: float | None, speed: float, dense: Any,
) -> Memory:  # fmt: skip
    """Weight-stationary: rows of A stream in blocks, tiles of B stay."""
    keep_stream, keep_tiles = _kept(m * k * stream_bits / 8, n * k * tile_bits / 8 * dense, buffer_bytes)
    total, stall = 0.0, 0.0
    for rs, cs, ks in product(_axis(m, block), _axis(n, cols), _axis(k, rows)):
        times = rs.count * cs.count * ks.count
        moved = rs.size * ks.size * stream_bits / 8 * (cs.first | ~keep_stream)
        moved = moved + ks.size * cs.size * tile_bits / 8 * dense * (rs.first | ~keep_tiles)
        moved = moved + rs.size * cs.size * result_bits / 8 * ks.last
        busy = rs.size + (2 * rows + cols - 2 if serial else 0)
        total, stall = total + times * moved, stall + times * np.maximum(0.0, moved / speed - busy)
    return Memory(total, np.ceil(stall).astype(np.int64))


def _output_traffic(
    m: Int, n: Int, k: Int, rows: Int, cols: Int, serial: bool,
    act_bits: Any, weight_bits: Any, buffer_bytes: float | None, speed: float, dense: Any,
) -> Memory:  # fmt: skip
    keep_act, keep_weights = _kept(m * k * act_bits / 8, n * k * weight_bits / 8 * dense, buffer_bytes)
    busy = k + 2 * rows + cols - 2 if serial else np.maximum(k, rows)
    total, stall = 0.0, 0.0
    for rs, cs in product(_axis(m, rows), _axis(n, cols)):
        times = rs.count * cs.count
        moved = rs.size * k * act_bits / 8 * (cs.first | ~keep_act)
        moved = moved + k * cs.size * weight_bits / 8 * dense * (rs.first | ~keep_weights)
        moved = moved + rs.size * cs.size * act_bits / 8
        total, stall = total + times * moved, stall + times * np.maximum(0.0, moved / speed - busy)
    return Memory(total, np.ceil(stall).astype(np.int64))


def _kept(stream: Any, tiles: Any, buffer_bytes: float | None) -> tuple[Any, Any]:
    """Which operands the buffer holds as a whole: the streaming one first, the other in what is left."""
    if buffer_bytes is None:
        return np.True_, np.True_
    keep_stream = np.asarray(stream <= buffer_bytes)
    return keep_stream, np.asarray(tiles + np.where(keep_stream, stream, 0.0) <= buffer_bytes)
