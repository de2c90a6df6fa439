import itertools
import subprocess
import sys

import numpy as np
import pytest

from netfit.compile._sizes import ConvSizes
from netfit.compile.embed import candidates, embed, pareto, reference, reference_calls, scalar
from netfit.compile.embed._axes import solve
from netfit.errors import ConfigError, JobError, MissingExtraError
from netfit.targets.vta import Config

pytest.importorskip("ortools", reason="needs netfit[pipeline]")

TINY = ConvSizes(1, 2, 3, 3, 2, 2, 2)


def random_sizes(rng):
    while True:
        groups = int(rng.choice([1, 1, 2]))
        n, c, k, h, w, r, s = (int(rng.integers(1, most)) for most in (4, 20, 20, 14, 14, 6, 6))
        stride, padding = tuple(map(int, rng.integers(1, 4, 2))), tuple(map(int, rng.integers(0, 3, 2)))
        try:
            return ConvSizes(n, groups * c, h, w, groups * k, r, s, stride, padding, groups)
        except ConfigError:
            continue


def operands(rng, z):
    x = rng.integers(-128, 128, (z.n, z.c, z.h, z.w)).astype(np.int8)
    return x, rng.integers(-128, 128, (z.k, z.c // z.groups, z.r, z.s)).astype(np.int8)


@pytest.mark.parametrize("core", ["1x16", "4x8"])
@pytest.mark.parametrize("roles", ["plain", "swapped", None])
def test_embeddings_compute_the_convolution(core, roles, conv_reference):
    rng = np.random.default_rng(7)
    for _ in range(6):
        z = random_sizes(rng)
        found = embed(z, Config.from_text(core), roles)
        x, w = operands(rng, z)
        out, _ = found.run(x, w)
        assert np.array_equal(out, conv_reference(z, x, w)), (z, found.solution)
        assert found.conv().products * z.groups == found.calls
        assert found.conv().words["inp"] == found.solution.words
        assert np.array_equal(reference(z, Config.from_text(core)).run(x, w), out)


def test_call_gains_of_known_operators():
    """Single channel and filter: pixels take the channels' lanes, taps those of the sum."""
    assert embed(ConvSizes(1, 1, 28, 28, 1, 3, 3, padding=(1, 1))).gain == 144
    assert embed(ConvSizes(1, 1, 32, 32, 1, 5, 5, padding=(2, 2))).gain == 200
    depthwise = embed(ConvSizes(1, 32, 28, 28, 32, 3, 3, padding=(1, 1), groups=32))
    assert depthwise.gain == 144 and depthwise.solution.proven and depthwise.swapped
    full = embed(ConvSizes(1, 64, 14, 14, 64, 3, 3, padding=(1, 1)))
    assert full.gain == 1 and full.solution.roles == "plain" and full.utilization == 1


@pytest.mark.slow
def test_all_server_convolutions_are_proven(server_convs):
    assert len(server_convs) == 103
    found = [embed(z) for z in server_convs]
    assert all(e.solution.proven for e in found)
    gains = np.array([e.gain for e in found if e.gain > 1])
    assert len(gains) == 11
    assert np.exp(np.log(gains).mean()) == pytest.approx(8.03, abs=0.01)
    assert gains.max() == pytest.approx(100 / 7)


def test_some_server_convolutions(server_convs, conv_reference):
    """The ones with few channels improve; each is lowered, simulated and exact."""
    rng = np.random.default_rng(5)
    few = [z for z in server_convs if z.c < 4 and z.n == 1][:3]
    for z in few:
        found = embed(z)
        assert found.gain > 1 and found.solution.proven
        x, w = operands(rng, z)
        assert np.array_equal(found.run(x, w)[0], conv_reference(z, x, w))


def test_fewer_calls_are_fewer_cycles():
    z = ConvSizes(1, 1, 28, 28, 1, 3, 3, padding=(1, 1))
    ours, theirs = embed(z).cost(), reference(z).cost()
    assert theirs["accelerator"] > 3 * ours["accelerator"]
    assert ours["total"] == ours["accelerator"] + ours["packing"]
    assert ours["packing"] == embed(z).packed_bytes


def test_the_scalar_level_counts_like_brute_force():
    found = scalar.solutions(TINY, (1, 2, 2))
    assert len(found) == scalar.brute_force(TINY, (1, 2, 2)) == 216
    assert len(scalar.solutions(TINY, (1, 2, 2), ordered=False)) == 864
    assert sum(scalar.aligned(TINY, (1, 2, 2), m) for m in found) == 112
    assert all(scalar.accepts(TINY, (1, 2, 2), m) for m in found)
    assert not scalar.accepts(TINY, (1, 2, 2), (*found[0][:-1], found[0][-2]))


def test_the_axis_level_is_part_of_the_scalar_level():
    rng, checked = np.random.default_rng(0), 0
    cores = [(1, 2, 2), (2, 2, 2), (1, 2, 3), (1, 3, 2)]
    while checked < 20:
        n, c, h, w, k, r, s = (int(x) for x in rng.integers(1, (3, 4, 5, 5, 4, 3, 3)))
        try:
            z = ConvSizes(n, c, h, w, k, r, s, (int(rng.integers(1, 3)),) * 2)
        except ConfigError:
            continue
        core = cores[checked % len(cores)]
        match = scalar.first_call(z, core, solve(z, core, "plain").tiles)
        if match is None:
            continue
        assert scalar.accepts(z, core, match) and scalar.aligned(z, core, match), (z, core, match)
        checked += 1


def test_the_front_starts_with_the_solvers_answer():
    z = ConvSizes(1, 3, 12, 12, 8, 3, 3, padding=(1, 1))
    front, best = pareto(z), embed(z)
    assert (front[0].calls, front[0].packed_bytes) == (best.calls, best.packed_bytes)
    assert all(a.calls < b.calls and a.packed_bytes > b.packed_bytes for a, b in itertools.pairwise(front))


def test_the_layout_can_be_read():
    text = embed(ConvSizes(1, 3, 16, 16, 8, 3, 3, padding=(1, 1))).layouts()
    assert set(text) == {"image", "weights", "result"} and "lanes" in text["image"]
    assert candidates(7) == [(1, 7), (2, 4), (3, 3), (4, 2), (7, 1)]
    assert reference_calls(ConvSizes.gemm(16, 16, 16), (1, 16, 16)) == 16


def test_what_cannot_be_embedded(monkeypatch):
    with pytest.raises(ConfigError, match="does not fit"):
        ConvSizes(1, 1, 2, 2, 1, 3, 3)
    with pytest.raises(ConfigError, match="groups = 3 do not divide"):
        ConvSizes(1, 4, 8, 8, 4, groups=3)
    with pytest.raises(ConfigError, match="unknown 'kernel'"):
        ConvSizes.from_text("1x3x8x8,k=4,kernel=3")
    with pytest.raises(ConfigError, match="write such as"):
        ConvSizes.from_text("3x8x8")
    with pytest.raises(ConfigError, match="up to 5000 multiplications"):
        scalar.macs(ConvSizes(1, 64, 56, 56, 64, 3, 3))
    with pytest.raises(JobError, match="may be more"):
        scalar.solutions(ConvSizes(1, 4, 6, 6, 4, 3, 3), (1, 2, 4), limit_s=0.01)
    with pytest.raises(ConfigError, match="expected int8"):
        embed(TINY).run(np.zeros((1, 2, 3, 3), np.int8), np.zeros((2, 2, 2, 2), np.int16))
    monkeypatch.setitem(__import__("sys").modules, "ortools.sat.python.cp_model", None)
    with pytest.raises(MissingExtraError, match=r"netfit\[pipeline\]"):
        embed(TINY)


INTERRUPTED = """
import os, signal, time
from netfit.compile._sizes import ConvSizes
from netfit.compile.embed import embed, scalar
signal.signal(signal.SIGINT, signal.default_int_handler)
embed(ConvSizes(1, 1, 8, 8, 1, 3, 3))
scalar.solutions(ConvSizes(1, 2, 3, 3, 2, 2, 2), (1, 2, 2))
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    raise SystemExit(7)
"""


def test_the_solver_leaves_interrupts_alone():
    assert subprocess.run([sys.executable, "-c", INTERRUPTED], check=False).returncode == 7
