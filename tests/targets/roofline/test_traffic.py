"""Bytes through each level, against products worked out by hand and against a simulated cache."""

from collections import OrderedDict
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.targets.roofline import Loop, Nest, Operand


def at(*axes):
    return tuple((axis, 1) if isinstance(axis, str) else axis for axis in axes)


def matmul(m, n, k, *loops):
    operands = (
        Operand("a", (at("m"), at("k"))),
        Operand("b", (at("k"), at("n"))),
        Operand("c", (at("m"), at("n")), written=True),
    )
    return Nest({"m": m, "n": n, "k": k}, operands, [Loop(axis, step) for axis, step in loops])


def test_what_fits_moves_nothing_when_warm():
    assert matmul(64, 64, 64).traffic(3 * 64 * 64 * 4) == (0, 0)


def test_a_stream_moves_all_but_what_the_cache_keeps():
    x = Nest({"i": 1024}, (Operand("x", (at("i"),)),))
    assert x.traffic(1024).read == pytest.approx(4096 * (1 - 1024 / 4096))
    assert x.traffic(1).read == pytest.approx(4096, rel=1e-3)


def test_blocks_reuse_the_operand_no_loop_moves():
    # Row blocks of 64 over columns blocks of 64: a is read once, b once a row block, c once.
    nest = matmul(1024, 1024, 64, ("m", 64), ("n", 64))
    found = nest.traffic(3 * 64 * 64 * 4)
    whole = 1024 * 64 * 4
    missed = 1 - 3 * 64 * 64 * 4 / (4 * (64 * 64 + 64 * 1024 + 64 * 1024))
    assert found.read == pytest.approx(missed * (whole + 16 * whole))
    assert found.write == pytest.approx(missed * 1024 * 1024 * 4)


def test_a_column_costs_whole_lines():
    # b is walked down its columns: a line for every element as long as the next column finds none of them.
    nest = matmul(1, 4096, 4096, ("m", 1), ("n", 1), ("k", 1))
    assert nest.traffic(1024).read >= 4096 * 4096 * 64 * 0.99
    # A cache that holds the lines of a column gives the next fifteen columns for nothing.
    assert nest.traffic(1 << 20).read <= 4096 * 4096 * 4 * 1.01


def test_scratch_of_the_step_before_is_not_fetched():
    packed = Operand("packed", (at("i"),), 4, buffer_bytes=1 << 16)
    nest = Nest({"i": 1 << 20}, (packed, Operand("x", (at("i"),))))
    assert nest.traffic(1 << 17).read == pytest.approx(4 * (1 << 20) * (1 - (1 << 17) / (8 << 20)))
    assert nest.traffic(1 << 15).read > nest.traffic(1 << 17).read * 1.9


def test_a_stride_beyond_the_taps_leaves_elements_out():
    image = Operand("x", (at(("i", 2), "r"), at(("j", 2), "q")))
    assert image.elements({"i": 10, "r": 1, "j": 10, "q": 1}) == 100
    assert image.elements({"i": 10, "r": 3, "j": 10, "q": 3}) == 21 * 21


def simulated(extents, loops, operands, lines):
    """Lines that a fully associative LRU cache fetches in the second of two runs; operands are C-ordered arrays."""
    kept, fetched = OrderedDict(), 0
    counts = [range(extents[axis]) for axis in loops]
    for turn in range(2):
        for index in product(*counts):
            place = dict(zip(loops, index, strict=True))
            for name, dims in operands.items():
                address = 0
                for axis in dims:
                    address = address * extents[axis] + place[axis]
                line = name, address * 4 // 64
                if line not in kept and turn:
                    fetched += 1
                kept[line] = kept.pop(line, None)
                if len(kept) > lines:
                    kept.popitem(last=False)
    return fetched * 64


@given(st.permutations(["m", "n", "k"]), st.integers(2, 64), *[st.sampled_from([1, 3, 16, 20]) for _ in range(3)])
@settings(max_examples=40)
def test_never_more_than_a_cache_really_fetches(order, lines, m, n, k):
    extents = {"m": m, "n": n, "k": k}
    dims = {"a": "mk", "b": "kn", "c": "mn"}
    nest = Nest(
        extents,
        tuple(Operand(name, tuple(at(axis) for axis in axes)) for name, axes in dims.items()),
        [Loop(axis, 1) for axis in order],
    )
    real = simulated(extents, order, dims, lines)
    assert nest.traffic(64 * lines).read <= real * 1.05 + 3 * 64
