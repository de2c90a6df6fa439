"""Dataset: splitting, normalisation and the guard against judging on training samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit.data import Dataset, check_disjoint
from netfit.errors import ConfigError


def make(y, *, x=None, split="train", mean=(0.5,), std=(0.25,)):
    y = np.asarray(y, np.int64)
    x = np.arange(len(y) * 4, dtype=np.uint8).reshape(-1, 1, 2, 2) if x is None else x
    return Dataset("toy", split, x, y, ("a", "b", "c"), mean, std, "none", "made up", np.arange(len(y)))


@given(st.lists(st.integers(0, 2), min_size=3, max_size=80), st.integers(0, 5), st.data())
def test_hold_out_is_stratified_exact_and_disjoint(labels, seed, draw):
    whole = make(labels)
    n = draw.draw(st.integers(1, len(labels) - 1))
    rest, held = whole.hold_out(n, seed)
    assert len(held) == n
    assert sorted([*rest.index, *held.index]) == list(range(len(labels)))
    check_disjoint(rest, held)
    for c in range(3):
        quota = labels.count(c) * n / len(labels)
        assert abs((held.y == c).sum() - quota) < 1
    again = whole.hold_out(n, seed)[1]
    assert (again.index == held.index).all()


def test_hold_out_depends_on_the_seed():
    whole = make([0, 1] * 50)
    assert (whole.hold_out(10, 0)[1].index != whole.hold_out(10, 1)[1].index).any()


@pytest.mark.parametrize("n", [0, 4, -1])
def test_hold_out_of_everything_or_nothing_is_refused(n):
    with pytest.raises(ConfigError, match=f"cannot hold out {n} of 4"):
        make([0, 0, 1, 1]).hold_out(n, 0)


def test_overlap_is_refused_and_names_a_row():
    whole = make([0, 1, 2, 0])
    with pytest.raises(ConfigError, match=r"1 samples are in both sets \(such as row 2\)"):
        check_disjoint(whole.subset([0, 2]), whole.subset([2, 3]))


def test_different_splits_do_not_overlap():
    check_disjoint(make([0, 1]), make([0, 1], split="test"))


def test_subset_of_a_subset_keeps_the_rows_of_the_whole():
    part = make([0, 1, 2, 0, 1]).subset([4, 2, 0]).subset([1])
    assert part.index.tolist() == [2] and part.y.tolist() == [2]
    assert part.x.ravel().tolist() == [8, 9, 10, 11]


@pytest.mark.parametrize("indices", [[5], [-1], [[0]]])
def test_indices_outside_are_refused(indices):
    with pytest.raises(ConfigError, match="from 0 to 1"):
        make([0, 1]).subset(indices)


def test_lengths_must_agree():
    with pytest.raises(ConfigError, match="3 samples but 2 entries in y"):
        make([0, 1], x=np.zeros((3, 1), np.float32))


def test_tensors_scale_bytes_and_normalise_by_channel():
    x = np.array([[[[0]], [[255]]]], np.uint8)
    tensor, label = make([1], x=x, mean=(0.5, 0.0), std=(0.5, 2.0)).tensors()
    assert tensor.flatten().tolist() == [-1.0, 0.5]
    assert str(tensor.dtype) == "torch.float32" and label.tolist() == [1]


def test_tensors_put_the_mean_where_a_value_is_missing_and_leave_x_alone():
    x = np.array([[np.nan, 3.0]], np.float32)
    whole = make([0], x=x, mean=(1.0, 1.0), std=(1.0, 2.0))
    assert whole.tensors()[0].tolist() == [[0.0, 1.0]]
    assert np.isnan(whole.x[0, 0]) and whole.x[0, 1] == 3


def test_tensors_of_chosen_samples():
    whole = make([0, 1, 2])
    assert whole.tensors([2, 0])[1].tolist() == [2, 0]
    assert (whole.tensors([2])[0] == whole.tensors()[0][2:]).all()
    assert whole.shape == (1, 2, 2)
