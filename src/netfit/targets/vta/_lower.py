"""From a convolution and its knobs to a program.

Two virtual threads share the memories: while one multiplies, the other's operands are loaded. Every load that
overwrites what a product still reads waits for that product's token; every product waits for its operands' token.
The operand both threads read is kept twice where memory allows, so that its next part loads while they multiply.
All tokens that are pushed are popped, so programs can follow each other.
"""

from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

from ._config import MEMORIES, Config
from ._conv import Conv, Knobs
from ._program import Program
from ._rules import Dims, Strict, data_tile, fold2d, kernel_loops, loop_sizes, why_invalid
from .isa import ALU, DTYPE, FINISH, GEMM, LOAD, STORE, uop

__all__ = ["lower"]

_MEM = {name: i for i, name in enumerate(MEMORIES)}
_MIN, _MAX, _SHR = 0, 1, 3
Rows = NDArray[Any]
Places = dict[str, NDArray[np.int64]]


def lower(
    conv: Conv, knobs: Knobs, config: Config, *, strict: Strict = "tvm", swap: bool = False, shift: int = 8
) -> Program:
    """The program of one convolution with its epilogue: shift right, clip to 0..127, store as int8.

    Args:
        conv: what is computed.
        knobs: the loop nest.
        config: the accelerator.
        strict: see :func:`why_invalid`.
        swap: the image is the right operand of the product, and the weights the left one.
        shift: bits of the shift.

    Raises:
        ConfigError: the nest is invalid; the message names the rule.
    """
    if rule := why_invalid(conv, knobs, config, strict, swap):
        raise ConfigError(f"{conv} with {knobs} cannot run on a VTA {config.name}: {rule}")
    nest = _Nest(conv, knobs, swap, _copies(conv, knobs, config, swap))
    v, steps = knobs.threads, conv.ci // knobs.tile_ci
    tiles = nest.tiles()
    first = np.zeros(len(tiles["h"]), np.int32)
    first[0] = 1
    resets = _stack([_reset(nest, t, ~first.astype(bool)) for t in range(v)])
    rounds = _rounds(nest, tiles, steps, first)
    epilogue = _stack([row for t in range(v) for row in _epilogue(nest, t, shift, len(first))])
    stores = [_stores(nest, tiles, t) for t in range(v)]
    body = _join([resets, rounds, epilogue, *stores])
    kernel = _kernel_uops(nest)
    head = _row(LOAD, mem=_MEM["uop"], y_size=1, x_size=len(kernel), x_stride=len(kernel))
    rows = _join([head[None], body.reshape(-1), *(row[None] for row in _tail(v))])
    return Program(config, rows, kernel, dict(zip(("inp", "wgt", "out"), nest.held(), strict=True)))


@dataclass(frozen=True)
class _Nest:
    """Which memory holds what, and how large a tile is there."""

    conv: Conv
    knobs: Knobs
    swap: bool
    copies: int  # of the operand that the threads share

    @property
    def memories(self) -> tuple[str, str]:
        """Memories of image and weights."""
        return ("wgt", "inp") if self.swap else ("inp", "wgt")

    def held(self) -> tuple[int, int, int]:
        words = self.conv.words
        data, weights = words["inp"], words["wgt"]
        return (weights, data, words["out"]) if self.swap else (data, weights, words["out"])

    @property
    def acc_tile(self) -> int:
        return self.knobs.tile_co * self.knobs.tile_h * self.knobs.tile_w

    @property
    def data_tile(self) -> int:
        return self.knobs.tile_ci * prod(data_tile(self.conv, self.knobs))

    @property
    def weight_tile(self) -> int:
        return self.knobs.tile_co * self.knobs.tile_ci * self.conv.kh * self.conv.kw

    def tiles(self) -> Places:
        """Places of all tiles in order of execution: image, first row, block of output channels, first column."""
        c, k = self.conv, self.knobs
        axes = (
            np.arange(c.batch),
            np.arange(c.oh // k.tile_h // k.h_nthread) * (k.tile_h * k.h_nthread),
            np.arange(c.co // k.tile_co // k.oc_nthread) * (k.tile_co * k.oc_nthread),
            np.arange(c.ow // k.tile_w) * k.tile_w,
        )
        grid = np.meshgrid(*axes, indexing="ij")
        return dict(zip(("n", "h", "co", "w"), (g.reshape(-1) for g in grid), strict=True))

    @property
    def kernel(self) -> int:
        """Micro-ops of the product of one tile."""
        sizes = loop_sizes(self.conv, self.knobs)
        return prod(sizes[name] for name in kernel_loops(self.conv, self.knobs)[1])

    def thread(self, t: int) -> tuple[int, int]:
        """Thread numbers along output channels and rows."""
        return (t, 0) if self.knobs.oc_nthread == 2 else (0, t)


def _copies(conv: Conv, knobs: Knobs, config: Config, swap: bool) -> int:
    """Two when the memory of the shared operand and that of micro-ops hold everything twice."""
    if knobs.threads == 1:
        return 1
    nest = _Nest(conv, knobs, swap, 2)
    shared = 0 if knobs.oc_nthread == 2 else 1
    tile, memory = (nest.data_tile, nest.weight_tile)[shared], nest.memories[shared]
    return 2 if 2 * tile <= config.depth(memory) and 4 * nest.kernel <= config.depth("uop") else 1


def _row(opcode: int, **fields: int) -> Rows:
    row = np.zeros((), DTYPE)
    row["opcode"] = opcode
    for name, value in fields.items():
        row[name] = value
    return row


def _join(parts: list[Rows]) -> Rows:
    """Concatenation along the last axis; as plain numbers, because fields would be joined one by one."""
    plain = [np.ascontiguousarray(p).view(np.int32).reshape(*p.shape, len(DTYPE.names or ())) for p in parts]
    return np.concatenate(plain, -2).view(DTYPE)[..., 0]


def _stack(rows: list[Rows]) -> Rows:
    """(tiles, rows) of one row for each tile."""
    return _join([row[:, None] for row in rows])


def _reset(nest: _Nest, t: int, waits: Any) -> Rows:
    """A GEMM that clears the accumulators; after the first tile it waits until they were stored."""
    row = np.zeros(len(waits), DTYPE)
    begin = t * nest.kernel
    row["opcode"], row["reset"], row["uop_begin"], row["uop_end"] = GEMM, 1, begin, begin + 1
    row["iter_out"], row["iter_in"], row["acc_in"] = 1, nest.acc_tile, 1
    row["pop_next"] = waits
    return row


def _epilogue(nest: _Nest, t: int, shift: int, tiles: int) -> list[Rows]:
    begin = t * nest.kernel
    steps = ((_SHR, shift), (_MAX, 0), (_MIN, 127))
    loop = {"uop_begin": begin, "uop_end": begin + 1, "iter_out": 1, "iter_in": nest.acc_tile, "acc_in": 1}
    rows = [_row(ALU, alu_op=op, use_imm=1, imm=imm, **loop) for op, imm in steps]
    rows[-1]["push_next"] = 1
    return [np.broadcast_to(row, tiles) for row in rows]


def _rounds(nest: _Nest, tiles: Places, steps: int, first: NDArray[np.int32]) -> Rows:
    """Loads and products of all input-channel steps: (tiles, steps x rows of one step)."""
    v, k = nest.knobs.threads, nest.knobs
    count = len(first)
    places = {name: np.repeat(value, steps) for name, value in tiles.items()}
    places["ci"] = np.tile(np.arange(steps) * k.tile_ci, count)
    later = np.ones(count * steps, np.int32)
    later[0] = 0
    part = np.arange(count * steps) % nest.copies
    image_part, weight_part = (part, 0 * part) if k.oc_nthread == 2 else (0 * part, part)
    data = [_data_loads(nest, places, t, image_part) for t in range(k.h_nthread)]
    weights = [_weight_loads(nest, places, t, weight_part) for t in range(k.oc_nthread)]
    own, shared = (weights, data) if k.oc_nthread == 2 else (data, weights)
    groups = [[own[0], shared[0]], *([block] for block in own[1:])]
    # What a thread alone reads waits for its product. What both read waits for both, unless there are two of it.
    waiting = [own[0]] if v == 1 else own if nest.copies == 2 else groups[0]
    for block in waiting:
        block["pop_next"][:, 0] = later
    for group in groups:
        group[-1]["push_next"][:, -1] = 1
    products = _stack([_product(nest, t, part) for t in range(v)])
    products["pop_prev"] = products["push_prev"] = 1
    rows = _join([*(block for group in groups for block in group), products])
    return rows.reshape(count, -1)


def _bursts(dims: Dims) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int, int]:
    """Offsets in main and local memory of every burst of a region, and rows, columns and stride of each."""
    folded, outer = fold2d(dims)
    away, here = np.zeros(1, np.int64), np.zeros(1, np.int64)
    inner = prod(size for size, _ in folded)
    for size, stride in folded[:outer]:
        inner //= size
        away = (away[:, None] + np.arange(size) * stride).reshape(-1)
        here = (here[:, None] + np.arange(size) * inner).reshape(-1)
    rest = folded[outer:]
    cols = rest[-1][0] if rest and rest[-1][1] == 1 else 1
    rows = [d for d in rest if d[1] != 1] or [(1, 0)]
    return away, here, rows[0][0], cols, rows[0][1]


def _region(opcode: int, memory: str, dims: Dims, dram: Any, sram: Any) -> Rows:
    """Bursts of one region at many places: (places, bursts)."""
    away, here, rows, cols, stride = _bursts(dims)
    out = np.zeros((len(dram), len(away)), DTYPE)
    out["opcode"], out["mem"], out["y_size"], out["x_size"], out["x_stride"] = opcode, _MEM[memory], rows, cols, stride
    out["dram"], out["sram"] = dram[:, None] + away, np.reshape(sram, (-1, 1)) + here
    return out


def _data_loads(nest: _Nest, places: Places, t: int, part: NDArray[np.int64]) -> Rows:
    c, k = nest.conv, nest.knobs
    rows, cols = data_tile(c, k)
    area = c.height * c.width
    top = (places["h"] + t * k.tile_h) * c.stride_h - c.pad_h
    left = places["w"] * c.stride_w - c.pad_w
    image = (places["n"] * c.ci + places["ci"]) * area
    base = (t + part) * nest.data_tile
    memory = nest.memories[0]
    if not c.padded:
        dims = [(k.tile_ci, area), (rows, c.width), (cols, 1)]
        return _region(LOAD, memory, dims, image + top * c.width + left, base)
    # One burst a channel block: a burst pads all its rows alike.
    first, last = np.clip(top, 0, c.height), np.clip(top + rows, 0, c.height)
    begin, end = np.clip(left, 0, c.width), np.clip(left + cols, 0, c.width)
    out = np.zeros((len(top), k.tile_ci), DTYPE)
    channel = np.arange(k.tile_ci)
    out["opcode"], out["mem"], out["x_stride"] = LOAD, _MEM[memory], c.width
    out["dram"] = (image + np.minimum(first, c.height - 1) * c.width + np.minimum(begin, c.width - 1))[:, None] + (
        channel * area
    )
    out["sram"] = base[:, None] + channel * rows * cols
    out["y_size"], out["x_size"] = (last - first)[:, None], (end - begin)[:, None]
    above, before = np.clip(-top, 0, rows), np.clip(-left, 0, cols)
    out["y_pad0"], out["x_pad0"] = above[:, None], before[:, None]
    out["y_pad1"] = (rows - above - (last - first))[:, None]
    out["x_pad1"] = (cols - before - (end - begin))[:, None]
    return out


def _weight_loads(nest: _Nest, places: Places, t: int, part: NDArray[np.int64]) -> Rows:
    c, k = nest.conv, nest.knobs
    taps = c.kh * c.kw
    dims = [(k.tile_co, c.ci * taps), (k.tile_ci * taps, 1)]
    dram = ((places["co"] + t * k.tile_co) * c.ci + places["ci"]) * taps
    return _region(LOAD, nest.memories[1], dims, dram, (t + part) * nest.weight_tile)


def _stores(nest: _Nest, tiles: Places, t: int) -> Rows:
    c, k = nest.conv, nest.knobs
    along_co, along_h = nest.thread(t)
    co, h = tiles["co"] + along_co * k.tile_co, tiles["h"] + along_h * k.tile_h
    dims = [(k.tile_co, c.oh * c.ow), (k.tile_h, c.ow), (k.tile_w, 1)]
    dram = (tiles["n"] * c.co + co) * (c.oh * c.ow) + h * c.ow + tiles["w"]
    rows = _region(STORE, "out", dims, dram, t * nest.acc_tile)
    rows["pop_prev"][:, 0] = 1
    rows["push_prev"][:, -1] = 1
    return rows


def _strides(nest: _Nest) -> dict[str, tuple[int, int, int]]:
    """How far accumulator, image and weight words move with each loop of a tile."""
    c, k = nest.conv, nest.knobs
    rows, cols = data_tile(c, k)
    taps = c.kh * c.kw
    return {
        "ci": (0, rows * cols, taps),
        "w": (1, c.stride_w, 0),
        "kw": (0, 1, 1),
        "kh": (0, cols, c.kw),
        "co": (k.tile_h * k.tile_w, 0, k.tile_ci * taps),
        "h": (k.tile_w, c.stride_h * cols, 0),
    }


def _product(nest: _Nest, t: int, part: NDArray[np.int64]) -> Rows:
    counted, _ = kernel_loops(nest.conv, nest.knobs)
    sizes, strides = loop_sizes(nest.conv, nest.knobs), _strides(nest)
    row = np.zeros(len(part), DTYPE)
    begin = (part * nest.knobs.threads + t) * nest.kernel
    row["opcode"], row["iter_out"], row["iter_in"] = GEMM, 1, 1
    row["uop_begin"], row["uop_end"] = begin, begin + nest.kernel
    image, weights = ("wgt", "inp") if nest.swap else ("inp", "wgt")
    for name, place in zip(counted, ("out", "in"), strict=False):
        row[f"iter_{place}"] = sizes[name]
        for operand, step in zip(("acc", image, weights), strides[name], strict=True):
            row[f"{operand}_{place}"] = step
    return row


def _kernel_uops(nest: _Nest) -> NDArray[np.uint32]:
    """Micro-ops of the product of every part and thread; the first of each also addresses its whole tile of sums."""
    _, unrolled = kernel_loops(nest.conv, nest.knobs)
    sizes, strides = loop_sizes(nest.conv, nest.knobs), _strides(nest)
    offsets = reduce(
        lambda at, name: (at[:, None] + np.multiply.outer(np.arange(sizes[name]), strides[name])).reshape(-1, 3),
        unrolled,
        np.zeros((1, 3), np.int64),
    )
    made = []
    for part in range(nest.copies):
        for t in range(nest.knobs.threads):
            along_co, along_h = nest.thread(t)
            in_image, in_weights = (part, 0) if nest.knobs.oc_nthread == 2 else (0, part)
            places = (
                t * nest.acc_tile,
                (along_h + in_image) * nest.data_tile,
                (along_co + in_weights) * nest.weight_tile,
            )
            acc, image, weights = (offsets + np.array(places)).T
            made.append(uop(acc, weights, image) if nest.swap else uop(acc, image, weights))
    return np.concatenate(made)


def _tail(threads: int) -> list[Rows]:
    """Empty loads take the last products' tokens; FINISH, and an empty load before it, wait for the last stores."""
    loads = [_row(LOAD, mem=_MEM["inp"], pop_next=1) for _ in range(threads)]
    waits = [_row(LOAD, mem=_MEM["uop"], pop_next=1) for _ in range(threads - 1)]
    return [*loads, *waits, _row(FINISH, pop_next=1)]
