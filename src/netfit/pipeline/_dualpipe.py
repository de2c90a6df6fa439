"""DualPipe ("DeepSeek-V3 Technical Report", 2024) and its V form, which runs on half the devices."""

from __future__ import annotations

from netfit.errors import ConfigError

from ._schedule import Op

__all__ = ["dualpipe", "dualpipe_placement", "dualpipe_v"]

Rows = list[list[Op]]


def dualpipe_v(p: int, m: int) -> Rows:
    """Both halves of a V, most forwards paired with a backward of the other half.

    Raises:
        ConfigError: fewer microbatches than stages.
    """
    if m < 2 * p:
        raise ConfigError(f"microbatches is {m}, DualPipeV on {p} devices needs at least its {2 * p} stages")
    return [_Row(p, m, d).ops for d in range(p)]


def dualpipe_placement(p: int) -> tuple[tuple[int, ...], ...]:
    """Two replicas in opposite directions."""
    return tuple(range(p)), tuple(range(p - 1, -1, -1))


def dualpipe(p: int, m: int) -> Rows:
    """Two replicas; device d and its mirror both run the row that the V form has for d, replicas exchanged.

    Raises:
        ConfigError: an odd number of devices or microbatches, or fewer than two microbatches per device.
    """
    if p % 2 or m % 2 or m < 2 * p:
        raise ConfigError(
            f"{p} devices and {m} microbatches: DualPipe needs even numbers and at least {2 * p} microbatches"
        )
    half = dualpipe_v(p // 2, m // 2)
    return [_unfolded(half[d], p, 0) for d in range(p // 2)] + [
        _unfolded(half[p - 1 - d], p, 1) for d in range(p // 2, p)
    ]


def _unfolded(row: list[Op], p: int, side: int) -> list[Op]:
    """Stages of the V's second half belong to the other replica, whose first half is elsewhere."""
    replica = [side if op.stage < p // 2 else 1 - side for op in row]
    return [op._replace(replica=r, microbatch=2 * op.microbatch + r) for op, r in zip(row, replica, strict=True)]


class _Row:
    """One device of DualPipeV, in the eight phases of the published code."""

    def __init__(self, p: int, m: int, d: int) -> None:
        self.ops: list[Op] = []
        self._stage = (d, 2 * p - 1 - d)
        self._count = {(kind, chunk): 0 for kind in "FX" for chunk in (0, 1)}
        self._weights: list[tuple[int, int]] = []
        left = p - d - 1
        for _ in range(2 * left):
            self._run("F", 0)
        for _ in range(d + 1):
            self._run("F", 0)
            self._run("F", 1)
        for _ in range(left):
            self._run("B", 1)
            self._weight()
            self._run("F", 1)
        for i in range(m - 2 * p + d + 1):
            # The last device does not pair its first two: the backward needs that very forward.
            self._both(0, 1, paired=bool(i or left))
            self._both(1, 0)
        for _ in range(left):
            self._run("X", 1)
            self._both(1, 0)
        split = False
        for i in range(d + 1):
            middle = i == (d + 1) // 2
            split |= middle and d % 2 == 1
            self._run("B" if split else "X", 1)
            split |= middle and d % 2 == 0
            self._run("B" if split else "X", 0)
        for _ in range(left):
            self._weight()
            self._run("B" if split else "X", 0)
        while self._weights:
            self._weight()

    def _run(self, kind: str, chunk: int, paired: bool = False) -> None:
        counter = ("F" if kind == "F" else "X"), chunk
        j = self._count[counter]
        self._count[counter] += 1
        self.ops.append(Op(kind, self._stage[chunk], j, 0, paired))
        if kind == "B":
            self._weights.append((self._stage[chunk], j))

    def _both(self, forward: int, backward: int, paired: bool = True) -> None:
        self._run("F", forward, paired)
        self._run("X", backward)

    def _weight(self) -> None:
        if self._weights:
            stage, j = self._weights.pop(0)
            self.ops.append(Op("W", stage, j))
