"""V-shaped schedules: every device has a stage of the first half and the mirrored one of the second half.

Building blocks of "Pipeline Parallelism with Controllable Memory" (2024): one microbatch is laid out with constant
hops between neighbours, and repeated every six slots (two chunks, three operations each). The sum of the hops is how
long activations live, so it sets the memory; the block fits when no two of its operations meet in the same slot.
"""

from __future__ import annotations

from itertools import count, product

from netfit.errors import ConfigError

from ._schedule import Op

__all__ = ["v_half", "v_min", "v_placement", "zb_v"]

Rows = list[list[Op]]
_PERIOD = 6


def v_placement(p: int) -> tuple[tuple[int, ...], ...]:
    """Down the devices and back."""
    return ((*range(p), *range(p - 1, -1, -1)),)


def v_min(p: int, m: int) -> Rows:
    """About a third of 1F1B's activations: all hops one slot."""
    return _repeated(p, m, (1, 1, 1, 1))


def v_half(p: int, m: int) -> Rows:
    """About half of 1F1B's activations."""
    return _repeated(p, m, (2, 1, 2, 1))


def _repeated(p: int, m: int, hops: tuple[int, int, int, int]) -> Rows:
    """The block of one microbatch, every six slots; rows list it in order of time."""
    rows: Rows = []
    turns = _turns(p, hops)
    for d in range(p):
        starts = _starts(p, d, hops, turns)
        timed = [(slot, kind, stage) for (kind, stage), slot in _with_weights(p, d, starts).items()]
        planned = sorted((slot + _PERIOD * j, Op(kind, stage, j)) for j in range(m) for slot, kind, stage in timed)
        rows.append([op for _, op in planned])
    return rows


def _starts(p: int, d: int, hops: tuple[int, int, int, int], turns: tuple[int, int, int]) -> list[int]:
    """Slots on device d of F down, F up, B down and B up, in the order a microbatch passes."""
    return [hops[0] * d, turns[0] - hops[1] * d, turns[1] + hops[2] * d, turns[2] - hops[3] * d]


def _turns(p: int, hops: tuple[int, int, int, int]) -> tuple[int, int, int]:
    """Smallest offsets of the three later passes for which no device has two operations in one slot."""
    last = p - 1
    for slack in count():
        for a, b in product(range(slack + 1), repeat=2):
            c = slack - a - b
            if c < 0:
                continue
            up = (hops[0] + hops[1]) * last + 1 + a  # the second pass reaches the last device right after the first
            down = up + 1 + b
            back = down + (hops[2] + hops[3]) * last + 1 + c
            slots = [{s % _PERIOD for s in _starts(p, d, hops, (up, down, back))} for d in range(p)]
            if all(len(s) == 4 for s in slots):
                return up, down, back
        if slack > 3 * _PERIOD:
            raise ConfigError(f"no building block with hops {hops} fits {p} devices")
    raise AssertionError("count() never ends")


def _with_weights(p: int, d: int, starts: list[int]) -> dict[tuple[str, int], int]:
    """The block of one device, its two weight gradients in the slots that are left."""
    early, late = d, 2 * p - 1 - d
    slots = dict(zip([("F", early), ("F", late), ("B", late), ("B", early)], starts, strict=True))
    left = sorted(set(range(_PERIOD)) - {s % _PERIOD for s in starts})
    for stage in (late, early):
        after = slots["B", stage] + 1
        wait, slot = min(((s - after) % _PERIOD, s) for s in left)
        left.remove(slot)
        slots["W", stage] = after + wait
    return slots


def zb_v(p: int, m: int) -> Rows:
    """ZB-V ("Zero Bubble Pipeline Parallelism", 2024): no bubble at t_F = t_B = t_W with 1F1B's memory.

    Planned for at least 2p-1 microbatches; of fewer, those that do not exist are left out.
    """
    planned = max(m, 2 * p - 1)
    return [[op for op in _zb_v_row(p, planned, d) if op.microbatch < m] for d in range(p)]


def _zb_v_row(p: int, m: int, d: int) -> list[Op]:
    stage = (d, 2 * p - 1 - d)
    done = {(kind, chunk): 0 for kind in "FBW" for chunk in (0, 1)}
    row: list[Op] = []

    def run(kinds: str, chunk: int) -> None:
        for kind in kinds:
            row.append(Op(kind, stage[chunk], done[kind, chunk]))
            done[kind, chunk] += 1

    for _ in range(2 * (p - d) - 1):
        run("F", 0)
    for _ in range(d):
        run("F", 1)
        run("F", 0)
    for _ in range(p - d):
        run("FBW", 1)
    while done["F", 1] < m:
        if done["F", 0] < m:
            run("F", 0)
        run("BW", 0)
        run("FBW", 1)
    for _ in range(d):
        run("B", 0)
        run("B", 1)
    for _ in range(p - d):
        run("BW", 0)
    for chunk in (1, 0):
        run("W" * (done["B", chunk] - done["W", chunk]), chunk)
    return row
