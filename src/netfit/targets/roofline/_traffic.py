"""Bytes that a loop nest moves through each level of the memory, in closed form.

A nest is a list of loops from the outside, each over one axis in steps. What the body of a loop touches either stays
in a cache or does not: the outermost body whose operands fit is read once per turn of the loops around it (the layer
condition), except that an operand no loop right outside moves along stays where it is.

All of it is a lower bound. Of the loop that no longer fits, the best replacement still keeps as much as the cache
holds: going round F bytes with room for C costs at least 1 - C / F of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

LINE = 64  # bytes that move together

Dim = tuple[tuple[str, int], ...]  # an index as a sum of (axis, stride)


class Traffic(NamedTuple):
    """Bytes between two levels: fetched to be read, and fetched to be written and sent back."""

    read: float
    write: float


@dataclass(frozen=True)
class Operand:
    """A tensor and how the loops index it.

    Args:
        name: what it is called.
        dims: each index, outermost first, as a sum of strided axes; ``(("oh", 2), ("r", 1))`` is row 2 oh + r.
        itemsize: bytes of an element.
        buffer_bytes: size of the scratch it lives in, when the step before put it there: no level that holds the
            scratch has to fetch it from farther away.
        written: whether the nest changes it.
    """

    name: str
    dims: tuple[Dim, ...]
    itemsize: int = 4
    buffer_bytes: int | None = None
    written: bool = False

    @property
    def axes(self) -> frozenset[str]:
        """Axes that move it."""
        return frozenset(axis for dim in self.dims for axis, _ in dim)

    def elements(self, tile: Mapping[str, float]) -> float:
        """Different elements that a tile of the axes touches."""
        return prod(_extent(dim, tile) for dim in self.dims)

    def line_bytes(self, tile: Mapping[str, float], extents: Mapping[str, float]) -> float:
        """Bytes of the cache lines that hold them, in a tensor of these extents, last index side by side."""
        size = stride = float(self.itemsize)
        for dim in reversed(self.dims):
            size = _extent(dim, tile) * max(size, min(LINE, stride) if stride > self.itemsize else 0.0)
            stride *= _extent(dim, extents)
        return size


def _extent(dim: Dim, tile: Mapping[str, float]) -> float:
    span = 1 + sum(stride * (tile[axis] - 1) for axis, stride in dim)
    return min(span, prod(tile[axis] for axis, _ in dim))  # a stride beyond the taps leaves elements out


@dataclass(frozen=True)
class Loop:
    """Turns over an axis in steps; the last step may be a shorter one."""

    axis: str
    step: float


@dataclass(frozen=True)
class Nest:
    """Loops and the operands they move.

    Args:
        extents: length of every axis.
        operands: tensors.
        loops: from the outside; what no loop cuts is done at once in the body.
        times: how often the whole nest runs.

    >>> vector = ((("i", 1),),)
    >>> copy = Nest({"i": 1e6}, (Operand("x", vector), Operand("y", vector, written=True)))
    >>> copy.traffic(1 << 20)  # of the 8 MB it keeps one
    Traffic(read=3475712.0, write=3475712.0)
    >>> copy.traffic(64 << 20)
    Traffic(read=0.0, write=0.0)
    """

    extents: Mapping[str, float]
    operands: tuple[Operand, ...]
    loops: Sequence[Loop] = ()
    times: float = 1.0

    def traffic(self, cache_bytes: float) -> Traffic:
        """Bytes that a cache of this size exchanges with the level behind it, when the nest runs again and again."""
        sizes = [self._bytes(depth) for depth in range(len(self.loops) + 1)]
        depth = next((d for d, size in enumerate(sizes) if size <= cache_bytes), len(sizes) - 1)
        if sizes[0] <= cache_bytes:
            return Traffic(0.0, 0.0)  # all of it is still there from the last time
        missed = 1 - cache_bytes / sizes[max(0, depth - 1)]
        moved = {False: 0.0, True: 0.0}
        for o in self.operands:
            if o.buffer_bytes is None or o.buffer_bytes > cache_bytes:
                moved[o.written] += self.times * missed * self._fetched(o, depth)
        return Traffic(moved[False], moved[True])

    def _bytes(self, depth: int) -> float:
        """What one turn of the first ``depth`` loops touches, in whole lines."""
        tile = self._tile(depth)
        return sum(o.line_bytes(tile, self.extents) for o in self.operands)

    def _tile(self, depth: int) -> dict[str, float]:
        """Extent of every axis inside the first ``depth`` loops."""
        return {**self.extents} | {loop.axis: loop.step for loop in self.loops[:depth]}

    def _fetched(self, operand: Operand, depth: int) -> float:
        tile = self._tile(depth)
        turning, size = [], {**self.extents}
        for loop in self.loops[:depth]:
            if size[loop.axis] > loop.step:  # one turn moves nothing
                turning.append((loop.axis, size[loop.axis] / loop.step))
            size[loop.axis] = loop.step
        while turning and turning[-1][0] not in operand.axes:
            turning.pop()
        turns = prod(count for _, count in turning)
        along_line = not turning or turning[-1][0] in {axis for axis, _ in operand.dims[-1]}
        if along_line:  # the next turn finds the rest of the line
            return turns * operand.elements(tile) * operand.itemsize
        return turns * operand.line_bytes(tile, self.extents)
