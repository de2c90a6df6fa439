import pytest

from netfit.errors import ConfigError
from netfit.search import greedy

# Score lost per value: the third layer is the most sensitive, the cost is the sum.
WEIGHT = {"a": 1.0, "b": 2.0, "c": 5.0}
START = {"a": 4, "b": 4, "c": 4, "fixed": "yes"}
STEPS = {name: [3, 2, 1] for name in WEIGHT}


def linear(params: dict[str, int]) -> tuple[float, float]:
    return sum(w * params[n] for n, w in WEIGHT.items()), float(sum(params[n] for n in WEIGHT))


def test_lowers_the_least_sensitive_first_and_stops_at_the_goal() -> None:
    points = greedy(START, STEPS, linear, goal=8.0)
    path = [p for p in points if p.taken]
    assert path[0].params == START
    assert path[-1].params == {"a": 1, "b": 3, "c": 4, "fixed": "yes"}
    assert path[-1].cost <= 8.0 < path[-2].cost


def test_evaluates_each_point_once() -> None:
    seen: list[tuple[int, ...]] = []

    def counted(params: dict[str, int]) -> tuple[float, float]:
        seen.append(tuple(params[n] for n in WEIGHT))
        return linear(params)

    points = greedy(START, STEPS, counted, goal=0.0)
    assert len(seen) == len(set(seen)) == len(points)


def test_jumps_over_a_step_that_saves_nothing() -> None:
    # A staircase: 3 costs as much as 4, 2 costs half.
    points = greedy({"a": 4}, {"a": [3, 2]}, lambda p: (p["a"], {4: 1.0, 3: 1.0, 2: 0.5}[p["a"]]), goal=0.6)
    assert [p.params["a"] for p in points if p.taken] == [4, 2]


def test_ends_when_the_goal_is_out_of_reach() -> None:
    points = greedy({"a": 4}, {"a": [3, 2]}, lambda p: (p["a"], p["a"] / 4), goal=0.1)
    assert [p for p in points if p.taken][-1].params == {"a": 2}


def test_refuses_a_step_without_a_start() -> None:
    with pytest.raises(ConfigError, match="'z'"):
        greedy({"a": 1}, {"z": [0]}, lambda p: (0.0, 0.0), goal=0.0)
