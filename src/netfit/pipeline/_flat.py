"""A schedule as flat integer arrays: what the checks and the simulator walk over."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

from ._schedule import KINDS, Op, Schedule

__all__ = ["B", "F", "Flat", "IntArray", "W", "X", "flatten"]

IntArray = NDArray[np.int64]
_CODE = {kind: code for code, kind in enumerate(KINDS)}
F, B, W, X = range(4)


@dataclass(frozen=True)
class Flat:
    """Operations numbered row by row.

    Attributes:
        kind: index into `KINDS`.
        producer: operation of another stage whose result this one reads, -1 for none.
        consumer: the one that reads this operation's result, -1 for none.
        row_start: first number of every device, and the total.
    """

    ops: list[Op]
    kind: IntArray
    stage: IntArray
    microbatch: IntArray
    replica: IntArray
    paired: NDArray[np.bool_]
    device: IntArray
    producer: IntArray
    consumer: IntArray
    row_start: list[int]


def flatten(schedule: Schedule) -> Flat:
    """Number the operations and link every one to what it reads.

    Raises:
        ConfigError: an operation has an unknown kind or a number out of range, runs twice or on the wrong device.
    """
    ops = list(chain.from_iterable(schedule.rows))
    lengths = [len(row) for row in schedule.rows]
    kind = np.array([_CODE.get(op[0], -1) for op in ops], dtype=np.int64)
    stage, microbatch, replica = (np.array([op[i] for op in ops], dtype=np.int64) for i in (1, 2, 3))
    device = np.repeat(np.arange(len(lengths)), lengths)
    stages, n = schedule.stages, schedule.microbatches
    if stages * n > 1000 + 4 * len(ops):  # a typing error must not claim gigabytes
        raise ConfigError(
            f"{len(ops)} operations cannot be a table of {stages} stages and {n} microbatches, which needs at least "
            f"{2 * stages * n}"
        )
    limits = ((kind, len(KINDS)), (stage, stages), (microbatch, n), (replica, len(schedule.placement)))
    bad = np.any([(value < 0) | (value >= limit) for value, limit in limits], axis=0)
    bad[~bad] = np.array(schedule.placement)[replica[~bad], stage[~bad]] != device[~bad]
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ConfigError(
            f"device {device[first]} lists {tuple(ops[first][:4])} (kind, stage, microbatch, replica); kinds are "
            f"{', '.join(KINDS)}, {stages} stages, {n} microbatches, placement {schedule.placement}"
        )
    cell = (replica * stages + stage) * n + microbatch
    forward, backward = _table(ops, cell, kind == F, schedule), _table(ops, cell, (kind == B) | (kind == X), schedule)
    _table(ops, cell, kind == W, schedule)  # for the check of doubled operations only
    up, down = (kind == F) & (stage > 0), ((kind == B) | (kind == X)) & (stage < stages - 1)
    producer = np.full(len(ops), -1, dtype=np.int64)
    producer[up] = forward[cell[up] - n]
    producer[down] = backward[cell[down] + n]
    consumer = np.full(len(ops), -1, dtype=np.int64)
    fed = np.flatnonzero(producer >= 0)
    consumer[producer[fed]] = fed
    if (lost := np.flatnonzero((up | down) & (producer < 0))).size:
        op = ops[lost[0]]
        raise ConfigError(
            f"{op} reads the result of stage {op.stage + (-1 if op.kind == 'F' else 1)}, which never runs"
        )
    paired = np.array([op[4] for op in ops], dtype=bool)
    row_start = [0, *np.cumsum(lengths).tolist()]
    return Flat(ops, kind, stage, microbatch, replica, paired, device, producer, consumer, row_start)


def _table(ops: list[Op], cell: IntArray, chosen: NDArray[np.bool_], schedule: Schedule) -> IntArray:
    """Number of the chosen operation of every (replica, stage, microbatch), -1 where there is none."""
    found = np.full(len(schedule.placement) * schedule.stages * schedule.microbatches, -1, dtype=np.int64)
    number = np.flatnonzero(chosen)
    found[cell[number]] = number
    if (twice := found[cell[number]] != number).any():
        raise ConfigError(f"{ops[number[twice][0]]} runs twice (stage {ops[number[twice][0]].stage})")
    return found
