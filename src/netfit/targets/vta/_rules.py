"""Which loop nests the accelerator cannot run, and why: exact rules, tested in one order, no measurement needed."""

from collections.abc import Sequence
from math import prod
from typing import Literal

from ._config import Config
from ._conv import Conv, Knobs

__all__ = ["Strict", "fold2d", "kernel_loops", "why_invalid"]

Strict = Literal["tvm", "isa"]
Dims = Sequence[tuple[int, int]]

_MOST_INSTRUCTIONS = 200_000
_MOST_STRIDE, _MOST_PAD = (1 << 16) - 1, 15  # 16 and 4 bits


def fold2d(dims: Dims) -> tuple[list[tuple[int, int]], int]:
    """The fewest dimensions that describe a region of memory, and how many of them one burst covers.

    Dimensions of size 1 go, neighbours with ``stride_outer == size_inner * stride_inner`` merge. One instruction moves
    a unit-stride innermost dimension and one more.

    Args:
        dims: (size, stride) from the outermost to the innermost dimension, in words.

    Returns:
        The folded dimensions, and how many of the outermost ones need an instruction for each of their values.

    >>> fold2d([(4, 64), (8, 8), (8, 1)])
    ([(256, 1)], 0)
    >>> fold2d([(4, 64), (2, 8), (3, 1)])
    ([(4, 64), (2, 8), (3, 1)], 1)
    """
    folded: list[tuple[int, int]] = []
    for size, stride in dims:
        if size == 1:
            continue
        if folded and folded[-1][1] == size * stride:
            folded[-1] = folded[-1][0] * size, stride
        else:
            folded.append((size, stride))
    covered = 2 if folded and folded[-1][1] == 1 else 1
    if len(folded) >= covered and folded and folded[-covered][1] > _MOST_STRIDE:
        covered -= 1  # no field holds that stride: an instruction for each row
    return folded, max(0, len(folded) - covered)


def kernel_loops(conv: Conv, knobs: Knobs) -> tuple[list[str], list[str]]:
    """Loops of the product of one tile: the two the hardware counts, and those unrolled into micro-ops."""
    sizes = loop_sizes(conv, knobs)
    counted = [name for name, size in sizes.items() if size > 1][:2]
    return counted, [name for name in sizes if name not in counted]


def loop_sizes(conv: Conv, knobs: Knobs) -> dict[str, int]:
    """Extents of the loops of one tile, from the outermost."""
    return {
        "ci": knobs.tile_ci, "w": knobs.tile_w, "kw": conv.kw, "kh": conv.kh, "co": knobs.tile_co, "h": knobs.tile_h,
    }  # fmt: skip


def data_tile(conv: Conv, knobs: Knobs) -> tuple[int, int]:
    """Rows and columns of input behind a tile of outputs."""
    rows = (knobs.tile_h - 1) * conv.stride_h + conv.kh
    return rows, (knobs.tile_w - 1) * conv.stride_w + conv.kw


def why_invalid(conv: Conv, knobs: Knobs, config: Config, strict: Strict = "tvm", swap: bool = False) -> str | None:
    """The first rule a loop nest breaks.

    Args:
        conv: what is computed.
        knobs: the loop nest.
        config: the accelerator.
        strict: ``"tvm"`` for what the published template can express: one burst a tile; ``"isa"`` for what the
            instructions can do, several bursts where one does not reach.
        swap: the image takes the weights' place in the product, and the weights the image's.

    Returns:
        Name of the rule, None for a valid nest.
    """
    k = knobs
    if k.oc_nthread == 2 and k.h_nthread == 2:
        return "two_vthreads"
    if conv.co // k.tile_co % k.oc_nthread:
        return "oc_vthread"
    if conv.oh // k.tile_h % k.h_nthread:
        return "h_vthread"
    rule = _memory_rule(conv, k, config, swap)
    if rule is None and strict == "tvm":
        rule = _burst_rule(conv, k)
    if rule is None:
        loops = loop_sizes(conv, k)
        if prod(loops[name] for name in kernel_loops(conv, k)[1]) > config.depth("uop") // 2:
            return "uop"
        tiles = conv.batch * (conv.oh // k.tile_h) * (conv.ow // k.tile_w) * (conv.co // k.tile_co)
        if tiles * (3 * conv.ci // k.tile_ci + 6) > _MOST_INSTRUCTIONS:
            return "insn"
        if max(conv.pad_h, conv.pad_w) > _MOST_PAD:
            return "pad_field"
    return rule


def _memory_rule(conv: Conv, k: Knobs, config: Config, swap: bool) -> str | None:
    rows, cols = data_tile(conv, k)
    data, weights = ("wgt", "inp") if swap else ("inp", "wgt")
    if rows * cols * k.tile_ci * k.h_nthread > config.depth(data):
        return "inp_sram"
    if k.tile_co * k.tile_ci * conv.kh * conv.kw * k.oc_nthread > config.depth(weights):
        return "wgt_sram"
    if k.tile_h * k.tile_w * k.tile_co * k.threads > config.depth("acc"):
        return "acc_sram"
    return None


def _burst_rule(conv: Conv, k: Knobs) -> str | None:
    rows, cols = data_tile(conv, k)
    area, taps = conv.height * conv.width, conv.kh * conv.kw
    if conv.padded:
        if k.tile_ci > 1:
            return "dma_inp_pad"
    elif fold2d([(k.tile_ci, area), (rows, conv.width), (cols, 1)])[1]:
        return "dma_inp"
    if fold2d([(k.tile_co, conv.ci * taps), (k.tile_ci * taps, 1)])[1]:
        return "dma_wgt"
    if fold2d([(k.tile_co, conv.oh * conv.ow), (k.tile_h, conv.ow), (k.tile_w, 1)])[1]:
        return "dma_out"
    return None
