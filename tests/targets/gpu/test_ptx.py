"""PTX text and instruction counts as features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError, DataNotFound
from netfit.targets.gpu import ptx_counts, ptx_features
from netfit.targets.gpu._ptx import GROUPED, grouped

# As a compiler writes it: a guard, a loop in a loop, a store behind a barrier.
PTX = """
.version 7.0
.target sm_80
.address_size 64
.visible .entry saxpy( .param .u64 a, .param .u32 n )
{
    .reg .pred %p<3>; .reg .f32 %f<4>;
    .shared .align 4 .b8 cache[1024];
    .loc 1 3 0
    ld.param.u64 %rd1, [a];   // the array
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %tid.x;
    setp.ge.s32 %p1, %r2, %r1;
    @%p1 bra $DONE;
$OUTER:
    mov.u32 %r4, 0;
$INNER:
    ld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%rd1];
    fma.rn.f32 %f1, %f1, %f2, %f1;
    sqrt.rn.f32 %f1, %f1;
    add.s32 %r4, %r4, 1;
    setp.lt.s32 %p2, %r4, 8;
    @%p2 bra $INNER;
    @!%p1 bra $OUTER;
$DONE:
    bar.sync 0;
    /* result */ st.shared.f32 [cache], %f1;
    st.global.f32 [%rd1], %f1;
    ret;
}
"""
TRIPS = {"$INNER": 8, "$OUTER": 3}


def test_loops_multiply_and_threads_multiply():
    counts = ptx_counts(PTX, (4, 1, 1), (32, 2, 1), TRIPS)
    threads = 4 * 64
    assert counts["fma.rn.f32"] == threads * 24
    assert counts["mov.u32"] == threads * (1 + 3)
    assert counts["ret"] == counts["bar.sync"] == threads
    assert counts["bra"] == threads * (1 + 24 + 3)


def test_features_are_grouped_as_the_paper_groups_them():
    found = ptx_features(PTX, (4,), (64,), TRIPS)
    assert tuple(found) == GROUPED
    assert found["threads_per_block"] == 64 and found["blocks"] == 4
    assert found["special"] == 256 * 24 and found["sync"] == 256
    assert found["global_bytes"] == 256 * (24 * 16 + 4)  # vectors of four floats, and the store
    assert found["param_bytes"] == 256 * 12 and found["shared_bytes"] == 256 * 4
    assert found["intensity"] == found["arithmetic"] / (found["global_bytes"] + found["param_bytes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trip_counts": {"$INNER": 8}}, r"loop \$OUTER has no trip count"),
        ({"trip_counts": {**TRIPS, "$X": 1}}, r"names '\$X', which is no loop"),
        ({"trip_counts": {**TRIPS, "$INNER": -1}}, r"= -1; allowed are numbers from 0"),
        ({"grid": (0, 1, 1)}, r"grid = \(0, 1, 1\); allowed are sizes from 1"),
        ({"kernel": "saxpi"}, "did you mean 'saxpy'"),
        ({"ptx": PTX[:-4]}, "braces do not close"),
        ({"ptx": ""}, "0 kernels"),
    ],
)
def test_what_cannot_be_counted(change, message):
    given = {"ptx": PTX, "grid": (1,), "block": (1,), "trip_counts": TRIPS} | change
    with pytest.raises(ConfigError, match=message):
        ptx_counts(**given)


@given(st.integers(1, 9), st.integers(1, 64), st.integers(0, 9), st.integers(0, 9))
def test_counts_are_linear_in_threads(blocks, threads, inner, outer):
    trips = {"$INNER": inner, "$OUTER": outer}
    one, many = ptx_counts(PTX, (1,), (1,), trips), ptx_counts(PTX, (blocks,), (threads,), trips)
    assert many == {opcode: count * blocks * threads for opcode, count in one.items()}


@pytest.mark.parametrize(
    ("opcode", "group", "amount"),
    [
        ("ld.global.f32", "global_bytes", 4), ("ld.global.v2.u64", "global_bytes", 16), ("ld.u8", "global_bytes", 1),
        ("st.shared.f64", "shared_bytes", 8), ("ld.param.u64", "param_bytes", 8), ("ld.local.f32", "global_bytes", 0),
        ("atom.global.add.f64", "global_bytes", 4), ("rsqrt.approx.f32", "special", 1), ("xor.b32", "logic", 1),
        ("bra.uni", "control", 1), ("selp.b32", "arithmetic", 1), ("cvta.to.global.u64", "arithmetic", 1),
        ("membar.gl", "instructions", 1),
    ],
)  # fmt: skip
def test_groups_of_opcodes(opcode, group, amount):
    found = grouped({opcode: 1.0}, (1,), (1,))
    assert found[group] == amount and found["instructions"] == 1


def test_every_opcode_of_the_measured_kernels_has_a_group():
    from netfit.data import gpu_launches

    try:
        launches = gpu_launches()
    except DataNotFound as e:
        pytest.skip(str(e))
    counts = {name: float(total) for name, total in zip(launches.names, launches.counts.sum(0), strict=True)}
    opcodes = {name: n for name, n in counts.items() if "." in name or name in ("ret", "bra")}
    found = grouped(opcodes, (1,), (1,))
    memory = sum(n for name, n in opcodes.items() if name.split(".")[0] in ("ld", "st", "atom"))
    kinds = sum(found[g] for g in ("special", "logic", "control", "arithmetic", "sync"))
    assert np.isclose(kinds + memory, found["instructions"])
