"""Operands in the layout of an embedding: every word of lanes by index arithmetic on the tensors.

A coordinate of an axis with tile t and loop count o is ``lane * o + loop``: neighbours along a loop stay neighbours, so
a tap that moves the image by one row moves it by one word. Lanes of fused axes count in mixed radix.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from .._sizes import ConvSizes

__all__ = ["Layout"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Lanes, blocks and loops of the operands of one group.

    Attributes:
        sizes: the operator.
        tiles: how many values of each axis lie in the lanes.
        lanes: lanes of pixels, of output channels, and of the sum.
    """

    sizes: ConvSizes
    tiles: dict[str, int]
    lanes: tuple[int, int, int]

    def loops(self, axis: str) -> int:
        """Loop count of an axis."""
        return -(-self.sizes.axes[axis] // self.tiles[axis])

    def blocks(self, place: int) -> int:
        """Words that the fused tiles of pixels (0), output channels (1) or the sum (2) fill."""
        axes = (("n", "oh", "ow"), ("k",), ("c", "r", "s"))[place]
        return -(-prod(self.tiles[a] for a in axes) // self.lanes[place])

    def step(self, axis: str) -> int:
        """Words between two outputs along ``"oh"`` or ``"ow"``; never more than the taps of a loop need."""
        tap, stride = ("r", self.sizes.stride[0]) if axis == "oh" else ("s", self.sizes.stride[1])
        return min(stride, self.loops(tap))

    def reach(self, axis: str) -> int:
        """Words along ``"oh"`` or ``"ow"``."""
        return (self.loops(axis) - 1) * self.step(axis) + self.loops("r" if axis == "oh" else "s")

    def image(self, x: NDArray[np.int8]) -> NDArray[np.int8]:
        """(n, c, h, w) of one group as (batches, channel blocks, rows, columns, pixel lanes, sum lanes)."""
        n, oh, ow = self._digits(("n", "oh", "ow"), 0)
        c, r, s = self._digits(("c", "r", "s"), 2)
        image = _spread(n, np.arange(self.loops("n")), self.loops("n"))  # (loop, block, lane)
        channel = _spread(c, np.arange(self.loops("c")), self.loops("c"))
        rows = self._rows("oh", oh, r)  # (word, pixel block, pixel lane, sum block, sum lane)
        cols = self._rows("ow", ow, s)
        # Axes: image loop, pixel block, channel loop, sum block, row, column, pixel lane, sum lane.
        at_n = image[:, :, None, None, None, None, :, None]
        at_c = channel[None, None, :, :, None, None, None, :]
        at_h = rows.transpose(1, 3, 0, 2, 4)[None, :, None, :, :, None]
        at_w = cols.transpose(1, 3, 0, 2, 4)[None, :, None, :, None]
        shape = np.broadcast_shapes(at_n.shape, at_c.shape, at_h.shape, at_w.shape)
        picked = _pick(x, (at_n, at_c, at_h, at_w), shape)
        return picked.reshape(shape[0] * shape[1], shape[2] * shape[3], *shape[4:])

    def weights(self, w: NDArray[np.int8]) -> NDArray[np.int8]:
        """(k, c, r, s) of one group as (row blocks, channel blocks, taps, taps, row lanes, sum lanes)."""
        (k,) = self._digits(("k",), 1)
        c, r, s = self._digits(("c", "r", "s"), 2)
        row = _spread(k, np.arange(self.loops("k")), self.loops("k"))
        channel, taps_h, taps_w = (
            _spread(digit, np.arange(self.loops(axis)), self.loops(axis))
            for digit, axis in ((c, "c"), (r, "r"), (s, "s"))
        )
        # Axes: row loop, row block, channel loop, sum block, tap, tap, row lane, sum lane.
        at_k = row[:, :, None, None, None, None, :, None]
        at_c = channel[None, None, :, :, None, None, None, :]
        at_r = taps_h.transpose(1, 0, 2)[None, None, None, :, :, None, None, :]
        at_s = taps_w.transpose(1, 0, 2)[None, None, None, :, None, :, None, :]
        shape = np.broadcast_shapes(at_k.shape, at_c.shape, at_r.shape, at_s.shape)
        picked = _pick(w, (at_k, at_c, at_r, at_s), shape)
        return picked.reshape(shape[0] * shape[1], shape[2] * shape[3], *shape[4:])

    def result(self, words: NDArray[np.int8]) -> NDArray[np.int8]:
        """(batches, row blocks, rows, columns, pixel lanes, row lanes) as (n, k, oh, ow) of one group."""
        e = self.sizes.axes
        n, oh, ow = self._digits(("n", "oh", "ow"), 0)
        (k,) = self._digits(("k",), 1)
        at = [
            _spread(digit, np.arange(self.loops(axis)), self.loops(axis))
            for digit, axis in ((n, "n"), (k, "k"), (oh, "oh"), (ow, "ow"))
        ]
        # Axes: image loop, pixel block, row loop, row block, row, column, pixel lane, row lane.
        at_n = at[0][:, :, None, None, None, None, :, None]
        at_k = at[1][None, None, :, :, None, None, None, :]
        at_h = at[2].transpose(1, 0, 2)[None, :, None, None, :, None, :, None]
        at_w = at[3].transpose(1, 0, 2)[None, :, None, None, None, :, :, None]
        places = np.broadcast_arrays(at_n, at_k, at_h, at_w)
        inside = np.logical_and.reduce(
            [(p >= 0) & (p < e[a]) for p, a in zip(places, ("n", "k", "oh", "ow"), strict=True)]
        )
        out = np.zeros((e["n"], e["k"], e["oh"], e["ow"]), words.dtype)
        out[tuple(p[inside] for p in places)] = words.reshape(inside.shape)[inside]
        return out

    def first_lanes(self, place: int) -> list[dict[str, int]]:
        """Coordinates of the lanes of the first block of pixels (0), output channels (1) or the sum (2)."""
        axes = (("n", "oh", "ow"), ("k",), ("c", "r", "s"))[place]
        digits = [digit[0] for digit in self._digits(axes, place)]
        count = int((digits[0] >= 0).sum())
        at = [{a: int(d[lane]) * self.loops(a) for a, d in zip(axes, digits, strict=True)} for lane in range(count)]
        return [lane for lane in at if all(lane[a] < self.sizes.axes[a] for a in axes)]

    def _digits(self, axes: tuple[str, ...], place: int) -> list[Ints]:
        """Lane number of every axis at (block, lane); -1 where a lane holds nothing."""
        flat = np.arange(self.blocks(place) * self.lanes[place]).reshape(-1, self.lanes[place])
        sizes = [self.tiles[a] for a in axes]
        digits = np.unravel_index(flat % prod(sizes), sizes)
        return [np.where(flat < prod(sizes), digit, -1) for digit in digits]

    def _rows(self, axis: str, lane: Ints, tap: Ints) -> Ints:
        """Row (or column) of the image at (word, pixel block, pixel lane, sum block, sum lane); -1 outside."""
        name, place, size = ("r", 0, self.sizes.h) if axis == "oh" else ("s", 1, self.sizes.w)
        stride, pad = self.sizes.stride[place], self.sizes.padding[place]
        word = np.arange(self.reach(axis))
        # Where taps of a loop are fewer than the stride, words between two outputs are left out.
        loop, within = (
            (word // self.step(axis), word % self.step(axis)) if self.step(axis) < stride else (0 * word, word)
        )
        moved = loop * stride + within
        at = (
            moved[:, None, None, None, None]
            + (lane * self.loops(axis) * stride)[:, :, None, None]
            + (tap * self.loops(name))[None, None]
            - pad
        )
        held = (lane[:, :, None, None] >= 0) & (tap[None, None] >= 0)
        return np.where(held & (at >= 0) & (at < size), at, -1)


def _spread(lane: Ints, loop: Ints, count: int) -> Ints:
    """Coordinates at (loop, block, lane); -1 where the lane holds nothing."""
    at = loop[:, None, None] + lane * count
    return np.where(lane >= 0, at, -1)


def _pick(x: NDArray[np.int8], places: tuple[Ints, ...], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Values at broadcast places, zero where one of them is outside."""
    inside = np.ones((1,) * len(shape), bool)
    for place, size in zip(places, x.shape, strict=True):
        inside = inside & (place >= 0) & (place < size)
    picked = x[tuple(np.clip(place, 0, size - 1) for place, size in zip(places, x.shape, strict=True))]
    return np.where(inside, picked, np.int8(0)).reshape(shape)
