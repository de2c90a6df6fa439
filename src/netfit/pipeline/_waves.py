"""Chimera and Hanayo: placements that meet themselves, filled by list scheduling."""

from __future__ import annotations

from typing import Literal

from netfit.errors import ConfigError

from ._greedy import Task, list_schedule
from ._schedule import Op

__all__ = ["chimera", "chimera_placement", "hanayo", "hanayo_placement"]

Rows = list[list[Op]]
Placement = tuple[tuple[int, ...], ...]


def chimera_placement(p: int, placement: Literal["mirror", "shift"]) -> Placement:
    """The second replica runs from the other end, or around half the ring.

    Raises:
        ConfigError: an odd number of devices.
    """
    if p % 2:
        raise ConfigError(f"devices is {p}, Chimera needs an even number")
    second = [p - 1 - s for s in range(p)] if placement == "mirror" else [(s + p // 2) % p for s in range(p)]
    return tuple(range(p)), tuple(second)


def chimera(p: int, m: int, placement: Placement) -> Rows:
    """Two replicas in opposite directions ("Chimera: Efficiently Training Large-Scale Neural Networks with
    Bidirectional Pipelines", 2021).

    The mirrored placement is planned with a backward as long as a forward: that order reaches p t_F + (2p-2) t_X
    for m = p at every t_X >= t_F tried, and 2m+p-2 slots of equal length when p divides m. The shifted one gains
    only when it is planned with the usual backward of twice the length.

    Raises:
        ConfigError: an odd number of microbatches.
    """
    if m % 2:
        raise ConfigError(f"microbatches is {m}, Chimera needs an even number: half of them go each way")
    t_x = 1.0 if placement[1][0] == p - 1 else 2.0
    return list_schedule(placement, [j % 2 for j in range(m)], 1.0, t_x, p, _backward_first)


def hanayo_placement(p: int, waves: int) -> Placement:
    """Stages zig-zag over the devices and turn around at both ends."""
    return ((*range(p), *range(p - 1, -1, -1)) * waves,)


def hanayo(p: int, m: int, waves: int) -> Rows:
    """Any number of waves ("Hanayo: Harnessing Wave-like Pipeline Parallelism for Enhanced Large Model Training
    Efficiency", 2023), planned with a backward twice as long as a forward."""
    return list_schedule(hanayo_placement(p, waves), [0] * m, 1.0, 2.0, p, _backward_first)


def _backward_first(task: Task) -> tuple[float, ...]:
    """Backwards in order of microbatches; then the forward that is nearest to its loss."""
    backward, _, stage, microbatch = task
    return (not backward, microbatch // 2, stage if backward else -stage)
