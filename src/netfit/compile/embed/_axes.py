"""The axis level: which tile of each axis goes into the instruction, decided by constraint programming.

An axis of the operator may be matched to an axis of the instruction only if it indexes the same operands. Tiles fuse:
the product of all tiles matched to one axis of the instruction is padded to its size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from netfit.errors import ConfigError, JobError, require

from .._sizes import ConvSizes

__all__ = ["Roles", "Solution", "candidates", "reference_calls", "solve"]

Roles = Literal["plain", "swapped"]
SPATIAL, TAPS = ("n", "oh", "ow"), ("c", "r", "s")
_LIMIT_S = 60.0


@dataclass(frozen=True)
class Solution:
    """Tiles of an embedding.

    Attributes:
        roles: ``"plain"``: the image is the left operand; ``"swapped"``: the weights are.
        tiles: how many values of each axis lie in one block of lanes (1: the axis is a loop around it).
        calls: instructions of one group.
        words: words of the packed image of one group.
        proven: whether no embedding has fewer calls, and of those none a smaller image.
        seconds: the solver worked.
    """

    roles: Roles
    tiles: dict[str, int]
    calls: int
    words: int
    proven: bool
    seconds: float


def matched(roles: Roles) -> dict[str, tuple[str, ...]]:
    """Axes of the operator that may be matched to each axis of ``out[x, y] += a[x, z] * b[y, z]``.

    The usage of an axis is the set of operands it indexes: n, oh, ow index result and image; k result and weights;
    c, r, s image and weights; groups index all three, as no axis of the instruction does.
    """
    return {"x": SPATIAL, "y": ("k",), "z": TAPS} if roles == "plain" else {"x": ("k",), "y": SPATIAL, "z": TAPS}


def candidates(extent: int) -> list[tuple[int, int]]:
    """(tile, loop count) with the smallest tile for every count.

    >>> candidates(6)
    [(1, 6), (2, 3), (3, 2), (6, 1)]
    """
    counts: dict[int, int] = {}
    for tile in range(1, extent + 1):
        counts.setdefault(-(-extent // tile), tile)
    return [(tile, count) for count, tile in counts.items()]


def reference_calls(sizes: ConvSizes, core: tuple[int, int, int]) -> int:
    """Instructions of the fixed layout: channels on the lanes, images on the batch, everything else loops."""
    e = sizes.axes
    blocks = -(-e["n"] // core[0]) * -(-e["k"] // core[1]) * -(-e["c"] // core[2])
    return sizes.groups * blocks * e["oh"] * e["ow"] * e["r"] * e["s"]


class _Model:
    """Variables of one assignment of roles."""

    def __init__(self, sizes: ConvSizes, core: tuple[int, int, int], roles: Roles) -> None:
        cp = require("ortools.sat.python.cp_model", "pipeline")
        self.cp, self.model = cp, cp.CpModel()
        self.sizes, self.extents = sizes, sizes.axes
        self.tile: dict[str, Any] = {}
        self.count: dict[str, Any] = {}
        self.blocks: dict[str, Any] = {}
        self.parts: dict[str, Any] = {}
        for axis, size in zip("xyz", core, strict=True):
            self._axis(axis, size, matched(roles)[axis])
        pixels = "x" if roles == "plain" else "y"
        rows, cols = self._reach("oh", "r", sizes.stride[0]), self._reach("ow", "s", sizes.stride[1])
        self.words = self._product("words", [
            self.blocks[pixels], self.count["n"], rows, cols, self.count["c"], self.blocks["z"],
        ])  # fmt: skip

    def _axis(self, axis: str, size: int, mine: tuple[str, ...]) -> None:
        model = self.model
        for name in mine:
            # A size of 1 holds nothing: a tile there would only be a loop by another name.
            table = candidates(self.extents[name]) if size > 1 else [(1, self.extents[name])]
            self.tile[name] = model.new_int_var_from_domain(self.cp.Domain.from_values([t for t, _ in table]), name)
            counts = self.cp.Domain.from_values([c for _, c in table])
            self.count[name] = model.new_int_var_from_domain(counts, f"loops of {name}")
            model.add_allowed_assignments([self.tile[name], self.count[name]], table)
        lanes = self._product(f"lanes of {axis}", [self.tile[name] for name in mine])
        most = prod(self.extents[name] for name in mine) if size > 1 else 1
        blocks = self.blocks[axis] = model.new_int_var(1, -(-most // size), f"blocks of {axis}")
        model.add(blocks * size >= lanes)
        model.add((blocks - 1) * size < lanes)
        self.parts[axis] = self._product(f"calls of {axis}", [blocks, *(self.count[name] for name in mine)])

    def _reach(self, axis: str, tap: str, stride: int) -> Any:
        """Rows (or columns) of the packed image: those a loop over outputs and taps steps through."""
        step = self.model.new_int_var(1, stride, f"step of {axis}")
        self.model.add_min_equality(step, [self.count[tap], self.model.new_constant(stride)])
        most = (self.extents[axis] - 1) * stride + 1
        moved = self.model.new_int_var(0, most, f"moved along {axis}")
        self.model.add_multiplication_equality(moved, [step, self.count[axis] - 1])
        return self._sum(moved, self.count[tap], most + self.extents[tap])

    def _sum(self, a: Any, b: Any, most: int) -> Any:
        total = self.model.new_int_var(1, most, "reach")
        self.model.add(total == a + b)
        return total

    def _product(self, name: str, factors: list[Any]) -> Any:
        """Product, two factors at a time: bounds stay small and propagate."""
        total = factors[0]
        for i, factor in enumerate(factors[1:]):
            low, high = (_bound(total, 0) * _bound(factor, 0), _bound(total, 1) * _bound(factor, 1))
            following = self.model.new_int_var(low, high, f"{name} {i}")
            self.model.add_multiplication_equality(following, [total, factor])
            total = following
        return total

    def minimise(self, goal: Any, deadline: float) -> tuple[Any, bool]:
        """The solver after its search, and whether it proved its answer."""
        self.model.minimize(goal)
        solver = self.cp.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.catch_sigint_signal = False  # its own handler would stay, and Ctrl-C kill the caller
        solver.parameters.max_time_in_seconds = max(0.1, deadline - time.monotonic())
        status = solver.solve(self.model)
        if status not in (self.cp.OPTIMAL, self.cp.FEASIBLE):
            raise JobError(f"the embedding of {self.sizes} was not found in time ({solver.status_name(status)})")
        return solver, status == self.cp.OPTIMAL


def _bound(variable: Any, end: int) -> int:
    domain = list(variable.proto.domain)
    return int(domain[0] if end == 0 else domain[-1])


def solve(sizes: ConvSizes, core: tuple[int, int, int], roles: Roles, limit_s: float = _LIMIT_S) -> Solution:
    """Fewest calls, then the smallest packed image, for one assignment of roles.

    The three axes of the instruction share no variable, so the product of their calls is least where their sum is.

    Args:
        sizes: the operator.
        core: sizes of the instruction's axes x, y, z.
        roles: which operand is on the left.
        limit_s: of the search.

    Raises:
        ConfigError: sizes beyond what the solver's integers hold.
        JobError: nothing was found within the limit.
        MissingExtraError: ortools is not installed.
    """
    if prod(sizes.axes.values()) > 2**60:
        raise ConfigError(f"{sizes} is too large to be embedded")
    start = time.monotonic()
    made = _Model(sizes, core, roles)
    first, proven = made.minimise(sum(made.parts.values()), start + limit_s)
    for name, part in made.parts.items():
        made.model.add(part == first.value(made.parts[name]))
    for variable in (*made.tile.values(), *made.count.values()):
        made.model.add_hint(variable, first.value(variable))
    try:
        second, smallest = made.minimise(made.words, start + limit_s)
    except JobError:  # no time was left: the first answer stands, its image is not proven smallest
        second, smallest = first, False
    tiles = {name: int(second.value(variable)) for name, variable in made.tile.items()}
    calls = prod(int(second.value(part)) for part in made.parts.values())
    return Solution(roles, tiles, calls, int(second.value(made.words)), proven and smallest, time.monotonic() - start)
