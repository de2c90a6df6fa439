"""The loop nests of our kernels, of a plain one, and what is known of anybody else's."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from netfit.kernels.dense import CHANNELS, ConvShape, Prepared

from ._traffic import Loop, Nest, Operand

# Vector instructions that put a vector of words together: widening, shifting and joining four bytes, or testing a bit
# of 32 channels (four vectors of words a test) and joining four bytes.
_PACKING = {"fp32": 0, "int8": 12, "bits": 32}
AHEAD = 64  # multiply-accumulates of the next sum that a core begins while one still waits: 500 instructions and more
OPERATIONS = {"fp32": 2, "bf16": 4, "int8": 8, "bits": 64}  # of one multiply-accumulate of 32-bit words


@dataclass(frozen=True)
class Work:
    """What an operator does, as far as the processor is concerned.

    Attributes:
        precision: of its products.
        unit: ``"vector"``, ``"tiles"`` or ``"scalar"``; None for whichever is fastest.
        operations: multiplications and additions carried out, those of padded tiles included.
        loads: load instructions, as full vectors each.
        chain: multiply-accumulates that wait for the one before, one after the other.
        nests: how it moves its operands, in phases.
        instructions: vector instructions beside the multiply-accumulates, on the same units.
    """

    precision: str
    unit: str | None
    operations: float
    loads: float
    nests: tuple[Nest, ...]
    chain: float = 0.0
    instructions: float = 0.0


def _at(*axes: str | tuple[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((axis, 1) if isinstance(axis, str) else axis for axis in axes)


def blocked(kernel: Prepared) -> Work:
    """The nest of our own kernels: an image of words, packing, and products block by block.

    Args:
        kernel: the prepared operator.
    """
    s, b, turns = kernel.shape, kernel.blocking, kernel.shape.batch * kernel.planes
    words, vectors = s.words(kernel.precision), ceil(s.pixels / b.lanes)
    tiles, panels, passes = ceil(s.rows / b.tile_rows), ceil(vectors / b.tile_vectors), ceil(words / b.kc)
    products = turns * tiles * b.tile_rows * vectors * b.lanes * words
    kept = turns * s.rows * vectors * (passes * kernel.planes - 1) / kernel.planes  # sums of the passes before
    # Of each panel its pixels, and a weight for all lanes a time; packing reads every word once.
    loads = turns * tiles * words * (vectors + panels * b.tile_rows) + kept + turns * words * vectors
    instructions = float(turns * s.rows * vectors * passes)  # adding up
    if kernel.precision == "bits":  # also twice the sums, less the ones of each pixel, which are counted first
        instructions = 3 * instructions + 2 * turns * words * vectors
    nests = _product_nests(kernel, words, turns)
    if not kernel.in_place:
        x = Nest({"x": _elements(kernel)}, (Operand("x", (_at("x"),), _itemsize(kernel)),), times=turns)
        nests = (x, *nests)
        loads += turns * _elements(kernel) * _itemsize(kernel) / (4 * b.lanes)
        if not kernel.packed:
            instructions += turns * _image_words(kernel) / b.lanes * _PACKING[kernel.precision]
    operations = products * OPERATIONS[kernel.precision]
    return Work(kernel.precision, "vector", operations, loads, nests, instructions=instructions)


def _itemsize(kernel: Prepared) -> int:
    return 4 if kernel.packed or kernel.precision == "fp32" else 1


def _elements(kernel: Prepared) -> int:
    """Elements of one input."""
    s = kernel.shape
    return _image_words(kernel) if kernel.packed else s.channels * s.height * s.width


def _image_words(kernel: Prepared) -> int:
    s = kernel.shape
    return -(-s.channels // CHANNELS[kernel.precision]) * s.height * s.width


def _product_nests(kernel: Prepared, words: int, turns: int) -> tuple[Nest, ...]:
    """Filling the packed block, and multiplying it."""
    s, b = kernel.shape, kernel.blocking
    buffer = 4 * b.kc * b.nc
    image = Operand("image", (_at("image"),), 4, None if kernel.in_place else 4 * _image_words(kernel))
    extents = {"image": _image_words(kernel), "block": b.kc * b.nc}
    fill = Nest(extents, (image, Operand("packed", (_at("block"),), 4, buffer, written=True)), times=turns)
    steps = (
        ("n", b.nc, s.pixels), ("k", b.kc, words), ("m", b.mc, s.rows), ("n", b.tile_vectors * b.lanes, s.pixels),
        ("m", b.tile_rows, s.rows),
    )  # fmt: skip
    operands = (
        Operand("weights", (_at("m"), _at("k"))),
        Operand("packed", (_at("k"), _at("n")), 4, buffer),
        Operand("sums", (_at("m"), _at("n")), written=True),
    )
    loops = [Loop(axis, min(step, size)) for axis, step, size in steps]
    return fill, Nest({"m": s.rows, "n": s.pixels, "k": words}, operands, loops, turns)


def plain(shape: ConvShape, precision: str, lanes: int) -> Work:
    """The nest of `netfit.kernels.dense.naive`: row, pixel, then the sum, one word after the other.

    Args:
        shape: sizes.
        precision: ``"fp32"``, ``"int8"`` or ``"bits"`` (one plane).
        lanes: 32-bit words of a vector, which a load could have brought.
    """
    s = shape
    channels = -(-s.channels // CHANNELS["bits"]) if precision == "bits" else s.channels
    item = 1 if precision == "int8" else 4
    extents: Mapping[str, float] = {
        "m": s.rows, "i": s.out_h, "j": s.out_w, "c": channels, "r": s.taps_h, "q": s.taps_w,
    }  # fmt: skip
    x = Operand("x", (_at("c"), _at(("i", s.stride), ("r", s.dilation)), _at(("j", s.stride), ("q", s.dilation))), item)
    w = Operand("weights", (_at("m"), _at("c"), _at("r"), _at("q")), item)
    nest = Nest(
        extents,
        (x, w, Operand("sums", (_at("m"), _at("i"), _at("j")), written=True)),
        [Loop(a, 1) for a in extents],
        s.batch,
    )
    steps = float(s.batch * s.rows * s.pixels * channels * s.taps_h * s.taps_w)
    # Taps that meet the padding are skipped.
    steps *= _inside(s.out_h, s.taps_h, s.height, s) * _inside(s.out_w, s.taps_w, s.width, s)
    each = 2 if precision != "bits" else 64
    # Only fp32 sums have to keep their order; integer ones are added in one cycle, which loads take as well.
    waiting = max(0.0, 1 - AHEAD / s.depth) * steps if precision == "fp32" else 0.0
    return Work(precision, "scalar", steps * each, 2 * steps, (nest,), waiting)


def _inside(out: int, taps: int, size: int, s: ConvShape) -> float:
    """Share of (pixel, tap) pairs along an axis that do not fall into the padding."""
    hits = sum(0 <= i * s.stride + t * s.dilation - s.padding < size for i in range(out) for t in range(taps))
    return hits / (out * taps)


def least(shape: ConvShape, precision: str, lanes: int) -> Work:
    """What any implementation has to do: each product once, each operand once. For kernels whose nest is not known.

    Args:
        shape: sizes.
        precision: ``"fp32"``, ``"bf16"``, ``"int8"`` or ``"bits"``.
        lanes: 32-bit words of a vector.
    """
    s, bytes_each = shape, {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "bits": 1 / 8}[precision]
    x, w = s.batch * s.channels * s.height * s.width * bytes_each, s.rows * s.depth * bytes_each
    out = 4.0 * s.batch * s.rows * s.pixels
    sizes = {"x": x, "weights": w, "sums": out}
    nest = Nest(sizes, tuple(Operand(name, (_at(name),), 1, written=name == "sums") for name in sizes))
    return Work(precision, None, s.macs * 2.0, (x + w) / (4 * lanes), (nest,))
