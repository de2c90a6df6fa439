"""Midpoints, how they combine, and how executions are shared out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit.analog import combine_midpoints, midpoint, multi_execution
from netfit.analog._bisect import Bisection
from netfit.analog._midpoint import Midpoint, mean_midpoint
from netfit.errors import ConfigError

positive = st.floats(0.01, 100)


def logistic(std, mu, k, clean=0.9, chance=0.1):
    return chance + (clean - chance) / (1 + (std / mu) ** k)


@given(st.floats(0.1, 1000), st.floats(1, 6))
def test_the_fit_finds_its_own_curve(mu, k):
    levels = [mu * 2 ** (i / 2) for i in range(-6, 7)]
    found = midpoint(levels, [logistic(s, mu, k) for s in levels], clean=0.9, chance=0.1)
    assert found.std == pytest.approx(mu, rel=0.02) and not found.censored
    assert found.slope is None or found.slope == pytest.approx(k, rel=0.02)
    between = midpoint(levels, [logistic(s, mu, k) for s in levels], clean=0.9, chance=0.1, method="interp")
    assert between.std == pytest.approx(mu, rel=0.1)


def test_a_curve_that_never_falls_is_censored():
    found = midpoint([1, 10, 100], [0.9, 0.9, 0.6], clean=0.9, chance=0.1)
    assert found.censored and found.std == 100 and str(found) == "> 100"
    both = mean_midpoint([found, Midpoint(10.0)])
    assert both.censored and both.low is None


def test_the_interval_over_seeds_is_students():
    found = mean_midpoint([Midpoint(1.0), Midpoint(2.0), Midpoint(4.0)])
    assert found.std == pytest.approx(2.0)
    half = 4.3027 * math.log(2) / math.sqrt(3)
    assert math.log(found.high / found.std) == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize(
    ("stds", "accuracies", "clean", "message"),
    [
        ([1.0], [0.1], 0.1, "clean accuracy 0.1 is not above chance"),
        ([1.0, 2.0], [0.5], 0.9, "as many levels as accuracies, not 2 and 1"),
        ([0.0], [0.9], 0.9, "at least one level above 0"),
    ],
)
def test_bad_curves(stds, accuracies, clean, message):
    with pytest.raises(ConfigError, match=message):
        midpoint(stds, accuracies, clean=clean, chance=0.1)


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_bisection_encloses_the_crossing_in_few_steps(start, mu):
    search = Bisection(start, 0.5, 1e6)
    while (level := search.next()) is not None:
        search.tell(level, logistic(level, mu, 3, 1.0, 0.0))
    assert search.above <= mu <= search.below <= 1.2501 * search.above
    assert len(search.told) <= 6 + abs(math.log(mu / start, 4))


def test_bisection_gives_up_at_the_largest_level_and_near_zero():
    never, always = Bisection(1.0, 0.5, 100.0), Bisection(1.0, 0.5, 100.0)
    for search, accuracy in ((never, 1.0), (always, 0.0)):
        while (level := search.next()) is not None:
            search.tell(level, accuracy)
    assert never.told[-1][0] == 100.0 and len(never.told) == 5
    assert len(always.told) < 20


@given(st.lists(positive, min_size=1, max_size=8))
def test_the_combined_midpoint_lies_below_the_weakest_site(stds):
    assert 0 < combine_midpoints(stds) <= min(stds) * (1 + 1e-9)


@given(st.lists(positive, min_size=1, max_size=8), st.integers(1, 6))
def test_repeats_use_the_budget_and_favour_the_weak(stds, budget):
    repeats = multi_execution(stds, budget * len(stds))
    assert sum(repeats) == budget * len(stds) and min(repeats) >= 1
    order = sorted(range(len(stds)), key=lambda i: stds[i])
    assert [repeats[i] for i in order] == sorted(repeats, reverse=True)
    loss = sum(1 / (s * s * n) for s, n in zip(stds, repeats, strict=True))
    assert loss <= sum(1 / (s * s * budget) for s in stds) * (1 + 1e-9)


def test_repeats_pay_what_an_execution_costs():
    assert multi_execution([1.0, 1.0], 12, cost=[1.0, 4.0]) == [4, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0, 3.0], 2), "a budget of 2 does not pay one execution of each of 3 sites"),
        (([1.0, 0.0], 4), "must be positive numbers, not 0.0"),
        (([1.0, 2.0], 4, [1.0]), "a cost for each of the 2 sites, not 1"),
    ],
)
def test_bad_budgets(arguments, message):
    with pytest.raises(ConfigError, match=message):
        multi_execution(*arguments)
