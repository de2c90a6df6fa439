"""Seeds: the same everywhere, and independent of each other."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.seeding import derive, seed_everything

SEEDS = st.integers(0, 2**63 - 1)
KEYS = st.lists(st.text(max_size=5) | st.integers(-5, 5), max_size=3)


def draws(seed):
    seed_everything(seed)
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_the_same_seed_gives_the_same_draws():
    assert draws(1) == draws(1)
    assert all(a != b for a, b in zip(draws(1), draws(2), strict=True))
    draws(2**63 - 1)


@given(SEEDS, KEYS, KEYS)
def test_children_are_seeds_and_differ_by_key(seed, a, b):
    assert 0 <= derive(seed, *a) < 2**63
    assert (derive(seed, *a) == derive(seed, *b)) == (a == b)


def test_children_are_the_same_in_another_process():
    code = "from netfit.seeding import derive; print(derive(7, 'trial', 3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == derive(7, "trial", 3)


def test_one_and_the_text_one_are_different_keys():
    assert derive(0, 1) != derive(0, "1") != derive(1)
    assert derive(0, "a", "b") != derive(0, "ab")


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", True, None])
def test_a_seed_out_of_range(seed):
    for call in (seed_everything, derive):
        with pytest.raises(ConfigError, match="seed must be"):
            call(seed)


def test_a_key_that_has_no_stable_text():
    with pytest.raises(ConfigError, match="keys"):
        derive(0, object())
