"""The scalar level: every operand element of the instruction is a variable, every multiplication a row of a table.

Exact and small: it also finds skewed embeddings, where outputs at different places share an input through different
taps, which no choice of axes describes. It proves the axis level on tiny operators and does not scale.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from netfit.errors import ConfigError, JobError, require

from .._sizes import ConvSizes
from ._axes import matched
from ._layout import Layout

__all__ = ["Match", "accepts", "aligned", "brute_force", "first_call", "macs", "solutions"]

_MOST_MACS = 5_000
# Numbers of the elements: out[x][y], image[x][z], weights[y][z], flattened one after the other.
Match = tuple[int, ...]


def macs(sizes: ConvSizes) -> list[tuple[int, int, int]]:
    """(result, image, weight) element numbers of every multiplication of an operator without padding.

    Raises:
        ConfigError: padding, groups, or more multiplications than this level is for.
    """
    if sizes.padding != (0, 0) or sizes.groups != 1 or sizes.macs > _MOST_MACS:
        raise ConfigError(f"{sizes}: the scalar level takes up to {_MOST_MACS} multiplications, no padding, no groups")
    return [_elements(sizes, point) for point in product(*(range(e) for e in sizes.axes.values()))]


def _elements(z: ConvSizes, point: tuple[int, ...]) -> tuple[int, int, int]:
    n, oh, ow, k, c, r, s = point
    row, col = oh * z.stride[0] + r, ow * z.stride[1] + s
    return (
        ((n * z.k + k) * z.oh + oh) * z.ow + ow,
        ((n * z.c + c) * z.h + row) * z.w + col,
        ((k * z.c + c) * z.r + r) * z.s + s,
    )


def solutions(sizes: ConvSizes, core: tuple[int, int, int], ordered: bool = True, limit_s: float = 60.0) -> list[Match]:
    """All embeddings of the instruction ``out[x, y] += image[x, z] * weights[y, z]`` into an operator.

    Args:
        sizes: the operator.
        core: sizes of x, y and z.
        ordered: count embeddings that only permute y or z once.
        limit_s: seconds.

    Raises:
        ConfigError: an operator that is too large.
        JobError: the search did not finish.
        MissingExtraError: ortools is not installed.
    """
    cp = require("ortools.sat.python.cp_model", "pipeline")
    table = macs(sizes)
    model, (nx, ny, nz) = cp.CpModel(), core
    most = [max(row[i] for row in table) for i in range(3)]
    out = [[model.new_int_var(0, most[0], "") for _ in range(ny)] for _ in range(nx)]
    image = [[model.new_int_var(0, most[1], "") for _ in range(nz)] for _ in range(nx)]
    weight = [[model.new_int_var(0, most[2], "") for _ in range(nz)] for _ in range(ny)]
    for x, y, z in product(range(nx), range(ny), range(nz)):
        model.add_allowed_assignments([out[x][y], image[x][z], weight[y][z]], table)
    model.add_all_different([v for row in out for v in row])
    model.add_all_different([v for row in weight for v in row])
    for row in image:
        model.add_all_different(row)
    if ordered:
        for a, b in [*zip(out[0], out[0][1:], strict=False), *zip(image[0], image[0][1:], strict=False)]:
            model.add(a < b)
    collector = _collector(cp, [v for rows in (out, image, weight) for row in rows for v in row])
    solver = cp.CpSolver()
    solver.parameters.enumerate_all_solutions, solver.parameters.num_workers = True, 1
    solver.parameters.max_time_in_seconds = limit_s
    solver.parameters.catch_sigint_signal = False  # its own handler would stay, and Ctrl-C kill the caller
    if solver.solve(model, collector) not in (cp.OPTIMAL, cp.INFEASIBLE):
        raise JobError(f"{sizes}: {len(collector.found)} embeddings of {core} in {limit_s} s, and there may be more")
    return sorted(collector.found)


def _collector(cp: Any, variables: list[Any]) -> Any:
    class Collector(cp.CpSolverSolutionCallback):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[Match] = []

        def on_solution_callback(self) -> None:
            self.found.append(tuple(int(self.value(v)) for v in variables))

    return Collector()


def accepts(sizes: ConvSizes, core: tuple[int, int, int], match: Match) -> bool:
    """Whether elements are an embedding: each product is one of the operator's, and no element is used twice."""
    known, (nx, ny, nz) = set(macs(sizes)), core
    out, image, weight = _split(match, core)
    rows_differ = all(len(set(row.tolist())) == nz for row in image)
    distinct = len(np.unique(out)) == nx * ny and len(np.unique(weight)) == ny * nz and rows_differ
    every = product(range(nx), range(ny), range(nz))
    return distinct and all((int(out[x, y]), int(image[x, z]), int(weight[y, z])) in known for x, y, z in every)


def _split(match: Match, core: tuple[int, int, int]) -> tuple[Any, Any, Any]:
    nx, ny, nz = core
    flat = np.array(match)
    a, b = nx * ny, nx * ny + nx * nz
    return flat[:a].reshape(nx, ny), flat[a:b].reshape(nx, nz), flat[b:].reshape(ny, nz)


def aligned(sizes: ConvSizes, core: tuple[int, int, int], match: Match) -> bool:
    """Whether each axis of the instruction moves only axes of the operator that index the same operands.

    These are what the axis level can say; all others are skewed.
    """
    axes = list(sizes.axes)
    points = {_elements(sizes, p): p for p in product(*(range(e) for e in sizes.axes.values()))}
    out, image, weight = _split(match, core)
    nx, ny, nz = core
    every = ((int(out[x, y]), int(image[x, z]), int(weight[y, z])) for x, y, z in product(*map(range, core)))
    grid = np.array([points[element] for element in every]).reshape(nx, ny, nz, len(axes))
    for number, axis in enumerate("xyz"):
        moved = np.any(np.diff(grid, axis=number) != 0, axis=(0, 1, 2))
        if any(m and name not in matched("plain")[axis] for m, name in zip(moved, axes, strict=True)):
            return False
    return True


def first_call(sizes: ConvSizes, core: tuple[int, int, int], tiles: dict[str, int]) -> Match | None:
    """Elements of the first instruction of an axis-level embedding with plain roles; None when lanes are padding."""
    layout = Layout(sizes, tiles, core)
    lanes = [layout.first_lanes(place) for place in range(3)]
    if any(len(points) < size for points, size in zip(lanes, core, strict=True)):
        return None
    cell = {
        (x, y, z): _elements(sizes, tuple({**lanes[0][x], **lanes[1][y], **lanes[2][z]}[a] for a in sizes.axes))
        for x, y, z in product(*map(range, core))
    }
    out = [cell[x, y, 0][0] for x in range(core[0]) for y in range(core[1])]
    image = [cell[x, 0, z][1] for x in range(core[0]) for z in range(core[2])]
    return (*out, *image, *(cell[0, y, z][2] for y in range(core[1]) for z in range(core[2])))


def brute_force(sizes: ConvSizes, core: tuple[int, int, int]) -> int:
    """Number of ordered embeddings, counted by trying all: the check of `solutions` for x = 1 and y = z = 2.

    Raises:
        ConfigError: another instruction.
    """
    if core != (1, 2, 2):
        raise ConfigError(f"brute force counts embeddings of (1, 2, 2), not {core}")
    table = macs(sizes)
    by_out: dict[int, dict[int, set[int]]] = {}
    for o, i, w in table:
        by_out.setdefault(o, {}).setdefault(i, set()).add(w)
    found = 0
    for o0, o1 in ((a, b) for a in by_out for b in by_out if a < b):
        shared = sorted(by_out[o0].keys() & by_out[o1].keys())
        for i0, i1 in ((a, b) for a in shared for b in shared if a < b):
            choices = product(by_out[o0][i0], by_out[o0][i1], by_out[o1][i0], by_out[o1][i1])
            found += sum(len(set(w)) == 4 for w in choices)
    return found
