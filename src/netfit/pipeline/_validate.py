"""Can this table run, and does it do one whole step?"""

from __future__ import annotations

import numpy as np

from netfit.errors import ConfigError

from ._flat import B, F, Flat, W, X, flatten
from ._schedule import Schedule

__all__ = ["check", "deadlock"]

_SHOWN = 8


def check(schedule: Schedule) -> None:
    """Every operation once, forwards before backwards, no deadlock.

    Raises:
        ConfigError: the first fault found.
    """
    if not schedule.rows or not schedule.placement or schedule.microbatches < 1:
        raise ConfigError("a schedule needs at least one device, one stage and one microbatch")
    flat = flatten(schedule)
    _complete(schedule, flat)
    _ordered(flat)
    _runs(flat)


def _complete(schedule: Schedule, flat: Flat) -> None:
    """Each microbatch passes every stage of one replica; its backward is an X, or a B and a W."""
    n = schedule.microbatches
    count = np.zeros((4, schedule.stages, n), dtype=np.int64)
    np.add.at(count, (flat.kind, flat.stage, flat.microbatch), 1)
    wrong = (count[F] != 1) | (count[X] + count[B] != 1) | (count[W] != count[B])
    if wrong.any():
        stage, microbatch = (int(i[0]) for i in np.nonzero(wrong))
        runs = " ".join(f"{kind}x{c}" for kind, c in zip("FBWX", count[:, stage, microbatch], strict=True) if c)
        raise ConfigError(
            f"microbatch {microbatch} on stage {stage} runs {runs or 'nothing'}; it needs F and X, or F, B and W, once"
        )
    owner = np.full(n, -1, dtype=np.int64)
    owner[flat.microbatch] = flat.replica
    if (moved := owner[flat.microbatch] != flat.replica).any():
        raise ConfigError(f"microbatch {flat.microbatch[moved][0]} is split between two replicas")


def _ordered(flat: Flat) -> None:
    """On its device an operation comes after the one whose stored results it needs."""
    order = np.empty((4, int(flat.stage.max()) + 1, int(flat.microbatch.max()) + 1))
    order[:] = np.nan
    order[flat.kind, flat.stage, flat.microbatch] = np.arange(len(flat.ops))
    for early, late in ((F, B), (F, X), (B, W)):
        if (wrong := order[late] < order[early]).any():
            op, need = flat.ops[int(order[late][wrong][0])], flat.ops[int(order[early][wrong][0])]
            device = flat.device[int(order[late][wrong][0])]
            raise ConfigError(f"device {device} runs {op} before {need}")
    for i in np.flatnonzero(flat.paired):
        last = i + 1 >= len(flat.ops) or flat.device[i + 1] != flat.device[i]
        if flat.kind[i] != F or last or flat.kind[i + 1] not in (B, X):
            raise ConfigError(f"{flat.ops[i]} is paired, but only a forward and the backward after it can be")


def _runs(flat: Flat) -> None:
    at, done = flat.row_start[:-1].copy(), np.zeros(len(flat.ops) + 1, dtype=bool)
    done[-1] = True  # producer -1: nothing to wait for
    finished, producer, consumer = done.tolist(), flat.producer.tolist(), flat.consumer.tolist()
    device, paired, end = flat.device.tolist(), flat.paired.tolist(), flat.row_start[1:]
    todo = list(range(len(at)))
    while todo:
        d = todo.pop()
        while at[d] < end[d]:
            i = at[d]
            width = 2 if paired[i] else 1
            if not all(finished[producer[j]] for j in range(i, i + width)):
                break
            for j in range(i, i + width):
                finished[j] = True
                if consumer[j] >= 0 and device[consumer[j]] != d:
                    todo.append(device[consumer[j]])
            at[d] += width
    if any(a < e for a, e in zip(at, end, strict=True)):
        raise deadlock(flat, at, finished)


def deadlock(flat: Flat, at: list[int], finished: list[bool]) -> ConfigError:
    """The error that names every blocked device, its operation and what that waits for."""
    stuck = []
    for d, (i, end) in enumerate(zip(at, flat.row_start[1:], strict=True)):
        if i < end:
            waits = [flat.producer[j] for j in (i, i + 1) if j == i or flat.paired[i]]
            need = [j for j in waits if j >= 0 and not finished[j]]
            what = " and ".join(f"{flat.ops[j]} of device {flat.device[j]}" for j in need) or "a message"
            stuck.append(f"device {d} at {flat.ops[i]} waits for {what}")
    more = f" and {len(stuck) - _SHOWN} more devices" if len(stuck) > _SHOWN else ""
    return ConfigError("deadlock: " + "; ".join(stuck[:_SHOWN]) + more)
