"""What a chain says about itself, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.structured import KSChain, KSPattern


def test_sizes_that_do_not_match_name_the_factors():
    with pytest.raises(ConfigError, match="factor 2 expects 512 inputs, factor 1 gives 480"):
        KSChain((KSPattern(1, 480, 10, 1), KSPattern(1, 5, 512, 1)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KSChain(()), "at least one factor"),
        (lambda: KSChain.butterfly(48), "next one is 64"),
        (lambda: KSChain.monarch(8, 0), "out_features=0"),
        (lambda: KSChain.low_rank(8, 8, 0), "rank=0"),
        (lambda: KSChain.block_diagonal(8, 8, 0), "nblocks=0"),
        (lambda: KSPattern(1, 0, 1, 1), r"\(1, 0, 1, 1\)"),
    ],
)
def test_bad_sizes_are_named(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_counts_of_the_literature():
    assert KSChain.butterfly(1024).n_params == 2 * 1024 * 10
    assert KSChain.butterfly(64, nblocks=2).n_params == 2 * KSChain.butterfly(64).n_params
    assert KSChain.monarch(1024, 1024).n_params == 2 * 1024 * 32
    assert KSChain.low_rank(30, 20, 4).n_params == 200
    assert KSChain.dense(30, 20).n_params == 600
    assert KSChain.block_diagonal(30, 20, 5).n_params == 120
    assert (KSChain.low_rank(30, 20, 4).rank_bound, KSChain.butterfly(32).rank_bound) == (4, 32)
    assert KSChain.butterfly(8).flops_per_row == 2 * 2 * 8 * 3


@given(st.integers(2, 3000), st.integers(2, 3000))
def test_monarch_wastes_little_of_odd_sizes(n, m):
    chain = KSChain.monarch(n, m)
    assert n <= chain.in_features and m <= chain.out_features
    if min(n, m) >= 64:
        assert chain.in_features <= 1.1 * n and chain.out_features <= 1.1 * m


@pytest.mark.parametrize("size", [(1000, 10), (300, 700)])
def test_monarch_of_the_named_odd_sizes_wastes_nothing(size):
    chain = KSChain.monarch(*size)
    assert (chain.in_features, chain.out_features) == size


@given(st.integers(1, 13))
def test_fusing_keeps_the_sizes_and_cuts_the_steps(log):
    chain = KSChain.butterfly(2**log)
    fused = chain.fuse()
    assert (fused.in_features, fused.out_features) == (2**log, 2**log)
    assert len(fused.patterns) <= 3
    assert [s for s, _ in chain.segments] == [0, *(e for _, e in chain.segments[:-1])]
    assert fused.n_params <= 4**log


def test_fusing_leaves_two_factors_alone():
    assert KSChain.monarch(1024, 1024).fuse() == KSChain.monarch(1024, 1024)
    assert KSChain.low_rank(500, 500, 20).fuse() == KSChain.low_rank(500, 500, 20)


def test_text_is_short():
    assert str(KSChain.monarch(64, 64)) == "8 of 8x8 -> 8 of 8x8 blocks"
    assert str(KSChain.butterfly(1024)) == "10 factors of 2x2 blocks"
