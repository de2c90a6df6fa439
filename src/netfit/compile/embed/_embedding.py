"""Embeddings of convolutions into the instruction of a VTA, and the programs that follow from them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError
from netfit.targets.vta import Config, Conv, Knobs, Program, Stats, Timing, best_knobs, lower, simulate, times
from netfit.targets.vta.layout import pack_image, pack_weight, unpack_image

from .._sizes import ConvSizes
from ._axes import Roles, Solution, candidates, matched, reference_calls, solve
from ._layout import Layout

__all__ = ["Embedding", "Reference", "embed", "pareto", "reference"]

_HOST_BYTES_PER_CYCLE = 1.0  # of packing: a copy loop of the host, written bytes a cycle of the accelerator


@dataclass(frozen=True)
class Embedding:
    """How an operator becomes calls of one matrix instruction.

    Attributes:
        sizes: the operator.
        config: the accelerator.
        solution: roles and tiles.
        reference_calls: instructions of the fixed layout with channels on the lanes.
    """

    sizes: ConvSizes
    config: Config
    solution: Solution
    reference_calls: int

    @property
    def calls(self) -> int:
        """Instructions in all."""
        return self.sizes.groups * self.solution.calls

    @property
    def gain(self) -> float:
        """How many times fewer instructions than the fixed layout."""
        return self.reference_calls / self.calls

    @property
    def swapped(self) -> bool:
        """Whether the weights are the left operand."""
        return self.solution.roles == "swapped"

    @property
    def utilization(self) -> float:
        """Share of the multipliers' work that is the operator's."""
        return self.sizes.macs / (self.calls * self.config.macs)

    @functools.cached_property
    def layout(self) -> Layout:
        """Where the values of each operand lie."""
        c = self.config
        pixels, rows = (c.block_out, c.batch) if self.swapped else (c.batch, c.block_out)
        return Layout(self.sizes, self.solution.tiles, (pixels, rows, c.block_in))

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed image, what the host has to write."""
        lanes = self.layout.lanes
        return self.sizes.groups * self.solution.words * lanes[0] * lanes[2]

    def conv(self) -> Conv:
        """One group as a convolution over words."""
        at = self.layout
        return Conv(
            at.reach("oh"), at.reach("ow"), at.loops("c") * at.blocks(2), at.loops("k") * at.blocks(1),
            at.loops("r"), at.loops("s"), at.step("oh"), at.step("ow"), batch=at.loops("n") * at.blocks(0),
        )  # fmt: skip

    def layouts(self) -> dict[str, str]:
        """Index of a word and of a lane of every packed operand, in words of the axes."""
        roles = matched(self.solution.roles)
        e, tiles = self.sizes.axes, self.solution.tiles
        out = {}
        for operand, axes in (("image", "n c oh r ow s"), ("weights", "k c r s"), ("result", "n k oh ow")):
            loops = [f"{a}:{-(-e[a] // tiles[a])}" for a in axes.split() if -(-e[a] // tiles[a]) > 1]
            used = [axis for axis in "xyz" if any(a in axes.split() for a in roles[axis])]
            fused = ["*".join(f"{a}:{tiles[a]}" for a in roles[axis] if tiles[a] > 1) or "-" for axis in used]
            out[operand] = f"loops [{' '.join(loops)}] lanes [{' | '.join(fused)}]"
        return out

    def lower(self, knobs: Knobs | None = None, timing: Timing | None = None) -> Program:
        """The program of one group.

        Args:
            knobs: its loop nest; the fastest of those an estimate ranks first when None.
            timing: cycles of the instructions, for that choice.

        Raises:
            ConfigError: the nest is invalid.
        """
        conv = self.conv()
        chosen = knobs or best_knobs(conv, self.config, timing, swap=self.swapped)
        return lower(conv, chosen, self.config, strict="isa", swap=self.swapped)

    def run(self, x: NDArray[np.int8], w: NDArray[np.int8]) -> tuple[NDArray[np.int8], Stats]:
        """Pack, simulate and unpack, group by group.

        Args:
            x: int8 (n, c, h, w).
            w: int8 (k, c / groups, r, s).

        Returns:
            int8 (n, k, oh, ow), shifted right by 8 and clipped to 0..127, and the cost of one group.

        Raises:
            ConfigError: operands of another shape.
        """
        z, groups = self.sizes, self.sizes.groups
        shapes = (z.n, z.c, z.h, z.w), (z.k, z.c // groups, z.r, z.s)
        if x.shape != shapes[0] or w.shape != shapes[1] or x.dtype != np.int8 or w.dtype != np.int8:
            raise ConfigError(f"operands {x.dtype} {x.shape} and {w.dtype} {w.shape}: expected int8 {shapes}")
        program, parts = self.lower(), []
        for image, weights in zip(np.split(x, groups, 1), np.split(w, groups, 0), strict=True):
            data, kernel = self.layout.image(image), self.layout.weights(weights)
            left, right = (kernel, data) if self.swapped else (data, kernel)
            out, stats = simulate(program, _words(left), _words(right))
            parts.append(self.layout.result(self._result_words(out)))
        return np.concatenate(parts, 1), stats

    def cost(self, timing: Timing | None = None) -> dict[str, float]:
        """Simulated cycles of all groups: ``accelerator``, ``packing`` on the host, and both together."""
        accelerator = self.sizes.groups * times(self.lower(timing=timing), timing).cycles
        packing = self.packed_bytes / _HOST_BYTES_PER_CYCLE
        return {"accelerator": accelerator, "packing": packing, "total": accelerator + packing}

    def _result_words(self, out: NDArray[np.int8]) -> NDArray[np.int8]:
        conv, lanes = self.conv(), self.layout.lanes
        rows = (conv.batch, conv.co, conv.oh, conv.ow)
        if self.swapped:  # the left operand's lanes come first
            return out.reshape(*rows, lanes[1], lanes[0]).swapaxes(-1, -2)
        return out.reshape(*rows, lanes[0], lanes[1])


@dataclass(frozen=True)
class Reference:
    """The fixed layout: channels on the lanes, images on the batch.

    Attributes:
        sizes: the operator.
        config: the accelerator.
    """

    sizes: ConvSizes
    config: Config

    def conv(self) -> Conv:
        """One group as a convolution over words."""
        z = self.sizes
        return Conv.of(
            self.config, n=z.n, c=z.c // z.groups, h=z.h, w=z.w, k=z.k // z.groups, r=z.r, s=z.s, stride=z.stride,
            padding=z.padding,
        )  # fmt: skip

    @property
    def utilization(self) -> float:
        """Share of the multipliers' work that is the operator's."""
        core = self.config.batch, self.config.block_out, self.config.block_in
        return self.sizes.macs / (reference_calls(self.sizes, core) * self.config.macs)

    def cost(self, timing: Timing | None = None) -> dict[str, float]:
        """As `Embedding.cost`."""
        conv = self.conv()
        program = lower(conv, best_knobs(conv, self.config, timing), self.config, strict="isa")
        accelerator = self.sizes.groups * times(program, timing).cycles
        packing = self.sizes.groups * conv.words["inp"] * self.config.word_bytes("inp") / _HOST_BYTES_PER_CYCLE
        return {"accelerator": accelerator, "packing": packing, "total": accelerator + packing}

    def run(self, x: NDArray[np.int8], w: NDArray[np.int8]) -> NDArray[np.int8]:
        """As `Embedding.run`, result only."""
        z, conv, parts = self.sizes, self.conv(), []
        program = lower(conv, best_knobs(conv, self.config), self.config, strict="isa")
        for image, weights in zip(np.split(x, z.groups, 1), np.split(w, z.groups, 0), strict=True):
            words, _ = simulate(program, pack_image(image, self.config), pack_weight(weights, self.config))
            parts.append(unpack_image(words, (z.n, z.k // z.groups, z.oh, z.ow), self.config))
        return np.concatenate(parts, 1)


def _words(packed: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.ascontiguousarray(packed).reshape(-1, *packed.shape[-2:])


def embed(
    sizes: ConvSizes, config: Config | None = None, roles: Roles | None = None, limit_s: float = 60.0
) -> Embedding:
    """The embedding with the fewest instructions, then the smallest packed image, then plain roles.

    Source: "Joint Program and Layout Transformations to enable Convolutional Operators on Specialized Hardware based
    on Constraint Programming" (2022).

    Args:
        sizes: the operator.
        config: the accelerator, the published 1x16 core when None.
        roles: only one assignment of operands; the better of both when None.
        limit_s: seconds of search for each.

    Raises:
        ConfigError: the operator is too large for the solver's integers.
        JobError: nothing was found within the limit.
        MissingExtraError: ortools is not installed.

    >>> found = embed(ConvSizes(1, 1, 28, 28, 1, 3, 3, padding=(1, 1)))
    >>> found.gain, found.solution.proven
    (144.0, True)
    """
    core = config or Config()
    shape = core.batch, core.block_out, core.block_in
    tried: tuple[Roles, ...] = (roles,) if roles else ("plain", "swapped")
    found = [solve(sizes, shape, name, limit_s) for name in tried]
    best = min(found, key=lambda s: (s.calls, s.words * _lanes(s, core), s.roles != "plain"))
    return Embedding(sizes, core, best, reference_calls(sizes, shape))


def _lanes(solution: Solution, config: Config) -> int:
    return (config.block_out if solution.roles == "swapped" else config.batch) * config.block_in


def reference(sizes: ConvSizes, config: Config | None = None) -> Reference:
    """What the embedding is compared with."""
    return Reference(sizes, config or Config())


def pareto(sizes: ConvSizes, config: Config | None = None) -> list[Embedding]:
    """Embeddings that no other one beats in both instructions and bytes of the packed image, fewest calls first.

    Plain enumeration over the tiles of each instruction axis; meant for small cores and to check the solver.

    Args:
        sizes: the operator.
        config: the accelerator.
    """
    core = config or Config()
    shape = core.batch, core.block_out, core.block_in
    front: list[Embedding] = []
    names: tuple[Roles, ...] = ("plain", "swapped")
    every = [
        Embedding(sizes, core, solution, reference_calls(sizes, shape))
        for roles in names
        for solution in _enumerated(sizes, shape, roles)
    ]
    for one in sorted(every, key=lambda e: (e.calls, e.packed_bytes, e.swapped)):
        if not front or one.packed_bytes < front[-1].packed_bytes:
            front.append(one)
    return front


def _enumerated(sizes: ConvSizes, shape: tuple[int, int, int], roles: Roles) -> list[Solution]:
    """Every choice of tiles that no other choice of the same instruction axis makes pointless."""
    per_axis = [_choices(sizes, size, matched(roles)[axis]) for axis, size in zip("xyz", shape, strict=True)]
    found = []
    lanes = (shape[0], shape[1], shape[2]) if roles == "plain" else (shape[1], shape[0], shape[2])
    for x in per_axis[0]:
        for y in per_axis[1]:
            for z in per_axis[2]:
                tiles = {**x[1], **y[1], **z[1]}
                at = Layout(sizes, tiles, lanes)
                words = prod([at.blocks(0), at.loops("n"), at.reach("oh"), at.reach("ow"), at.loops("c"), at.blocks(2)])
                found.append(Solution(roles, tiles, x[0] * y[0] * z[0], words, False, 0.0))
    return found


def _choices(sizes: ConvSizes, size: int, mine: tuple[str, ...]) -> list[tuple[int, dict[str, int]]]:
    """(calls, tiles) of one instruction axis; tiles beyond twice its size only where they are whole axes."""
    found: list[tuple[int, dict[str, int]]] = [(1, {})]
    for name in mine:
        extent = sizes.axes[name]
        table = [(t, c) for t, c in candidates(extent) if t <= 2 * size or t == extent] if size > 1 else [(1, extent)]
        found = [(calls * count, {**tiles, name: tile}) for calls, tiles in found for tile, count in table]
    return [(calls * -(-prod(tiles.values()) // size), tiles) for calls, tiles in found]
