"""Windows do not depend on how the stream is cut, and a stage goes on from its state."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.streaming import Frames, OverlapAdd, Stateful

sizes = st.integers(1, 9).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))
cuts = st.lists(st.integers(0, 12), max_size=12)


def pushed(stage, blocks):
    return [stage.push(block) for block in blocks]


def cut(stream, sizes):
    return np.split(stream, np.minimum(np.cumsum(sizes), len(stream)).astype(int))


@given(sizes, cuts, st.integers(0, 40))
def test_any_blocks_give_the_windows_of_the_whole(window, blocks, n):
    size, hop = window
    stream = np.arange(2 * n, dtype=float).reshape(n, 2)
    want = [stream[at : at + size] for at in range(0, n - size + 1, hop)]
    got = np.concatenate(pushed(Frames(size, hop, (2,)), cut(stream, blocks)))
    assert got.shape == (len(want), size, 2)
    assert np.array_equal(got, np.array(want).reshape(got.shape))


@given(sizes, cuts, st.integers(0, 12), st.integers(0, 2**31))
def test_overlap_add_is_bitwise_the_same_for_any_blocks(window, blocks, k, seed):
    size, hop = window
    frames = np.random.default_rng(seed).normal(size=(k, size, 2))
    whole, parts = OverlapAdd(size, hop, (2,)), OverlapAdd(size, hop, (2,))
    want = np.concatenate([whole.push(frames), whole.flush()])
    got = np.concatenate([*pushed(parts, cut(frames, blocks)), parts.flush()])
    assert np.array_equal(want, got)


def test_windows_of_ones_sum_to_how_many_overlap():
    add = OverlapAdd(4, 1)
    assert add.push(np.ones((6, 4))).tolist() == [1, 2, 3, 4, 4, 4]
    assert add.flush().tolist() == [3, 2, 1]
    assert add.flush().tolist() == [0, 0, 0]


@pytest.mark.parametrize("make", [lambda: Frames(5, 2, (3,)), lambda: OverlapAdd(5, 2, (3,))], ids=["frames", "add"])
def test_a_restart_changes_nothing(make):
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(n, 3) if isinstance(make(), Frames) else (n, 5, 3)) for n in (3, 4, 1, 6)]
    want = pushed(make(), blocks)
    first, second = make(), make()
    assert isinstance(first, Stateful)
    got = pushed(first, blocks[:2])
    state = first.state()
    first.push(blocks[2])  # what happens later does not touch the state
    second.restore(state)
    got += pushed(second, blocks[2:])
    assert all(np.array_equal(a, b) for a, b in zip(want, got, strict=True))


def test_a_state_of_other_windows_is_refused():
    state = Frames(5, 2, (3,)).state()
    with pytest.raises(ConfigError, match=r"does not fit here: expected at most 4 steps of \(2,\) float64"):
        Frames(5, 2, (2,)).restore(state)
    with pytest.raises(ConfigError, match="does not fit"):
        Frames(5, 2, (3,)).restore({})


@pytest.mark.parametrize(("size", "hop"), [(4, 0), (4, 5), (0, 0)])
def test_a_hop_beyond_the_window_is_refused(size, hop):
    for stage in (Frames, OverlapAdd):
        with pytest.raises(ConfigError, match="1 <= hop <= size"):
            stage(size, hop)
