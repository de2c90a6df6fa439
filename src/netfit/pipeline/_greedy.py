"""List scheduling: whenever a device is free, it starts the most urgent operation whose input is there."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from ._schedule import Op

__all__ = ["list_schedule"]

Task = tuple[bool, int, int, int]  # backward?, replica, stage, microbatch


def list_schedule(
    placement: tuple[tuple[int, ...], ...],
    owner: list[int],
    t_f: float,
    t_x: float,
    limit: int,
    urgency: Callable[[Task], tuple[float, ...]],
) -> list[list[Op]]:
    """Rows of whole forwards and backwards.

    Args:
        placement: device of every stage, per replica.
        owner: replica of every microbatch.
        t_f, t_x: time of one stage's forward and backward, in any unit.
        limit: microbatches that may be under way between their first forward and their last backward, per replica.
        urgency: sort key of an operation; the smallest goes first.
    """
    stages, devices = len(placement[0]), max(max(r) for r in placement) + 1
    rows: list[list[Op]] = [[] for _ in range(devices)]
    ready: list[list[tuple[tuple[float, ...], Task]]] = [[] for _ in range(devices)]
    idle = set(range(devices))
    running: list[tuple[float, int, Task]] = []
    waiting = [[j for j in range(len(owner)) if owner[j] == r] for r in range(len(placement))]

    def offer(task: Task) -> None:
        heapq.heappush(ready[placement[task[1]][task[2]]], (urgency(task), task))

    def admit(r: int) -> None:
        if waiting[r]:
            offer((False, r, 0, waiting[r].pop(0)))

    for r in range(len(placement)):
        for _ in range(limit):
            admit(r)
    now = 0.0
    while True:
        for d in sorted(idle):
            if ready[d]:
                task = heapq.heappop(ready[d])[1]
                rows[d].append(Op("X" if task[0] else "F", task[2], task[3], task[1]))
                heapq.heappush(running, (now + (t_x if task[0] else t_f), d, task))
                idle.discard(d)
        if not running:
            break
        now = running[0][0]
        while running and running[0][0] <= now + 1e-9:
            _, d, (backward, r, stage, j) = heapq.heappop(running)
            idle.add(d)
            if not backward:
                turns = stage + 1 == stages
                offer((turns, r, stage if turns else stage + 1, j))
            elif stage:
                offer((True, r, stage - 1, j))
            else:
                admit(r)
    return rows
