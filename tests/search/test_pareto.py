import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from netfit.errors import ConfigError
from netfit.search import pareto_mask

# Few distinct values: ties and equal rows are where such code goes wrong.
NUMBERS = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0, np.inf, -np.inf, np.nan])


def brute_force(values: np.ndarray, maximize: list[bool]) -> list[bool]:
    cost = np.where(maximize, -values, values)
    good = ~np.isnan(cost).any(axis=1)
    return [
        bool(good[i])
        and not any(good[j] and (cost[j] <= cost[i]).all() and (cost[j] < cost[i]).any() for j in range(len(cost)))
        for i in range(len(cost))
    ]


@given(st.data(), st.integers(0, 14), st.integers(1, 4))
def test_equals_brute_force(data: st.DataObject, n: int, d: int) -> None:
    values = data.draw(arrays(np.float64, (n, d), elements=NUMBERS))
    maximize = data.draw(st.lists(st.booleans(), min_size=d, max_size=d))
    assert pareto_mask(values, maximize).tolist() == brute_force(values, maximize)


@pytest.mark.parametrize("d", [2, 3])
def test_equals_brute_force_on_many_points(d: int) -> None:
    values = np.random.default_rng(0).integers(0, 40, (400, d)).astype(float)
    assert pareto_mask(values).tolist() == brute_force(values, [False] * d)


def test_leaves_the_values_alone() -> None:
    values = np.array([[1.0, 2.0], [2.0, 1.0]])
    pareto_mask(values, maximize=True)
    assert values.tolist() == [[1.0, 2.0], [2.0, 1.0]]


@pytest.mark.parametrize(("values", "maximize"), [([1.0, 2.0], False), (np.ones((3, 0)), False), ([[1, 2]], [True])])
def test_refuses_what_is_no_table(values: object, maximize: object) -> None:
    with pytest.raises(ConfigError):
        pareto_mask(values, maximize)  # type: ignore[arg-type]
