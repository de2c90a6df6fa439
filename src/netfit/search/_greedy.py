"""The greedy descent that gives a sampler a good start."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ._space import Params

__all__ = ["Visited", "greedy"]

_REACH = 2  # steps of one dimension tried at once: the second pays where the first one saves nothing
_LEAST_SAVING = 0.002  # of the start's cost: less is noise of the measurement, not a saving


@dataclass(frozen=True)
class Visited:
    """A point that :func:`greedy` evaluated.

    Args:
        params: dimension name to value.
        score: larger is better.
        cost: smaller is better.
        taken: whether the descent went through it; the last one taken is where it ended.
    """

    params: Params
    score: float
    cost: float
    taken: bool


def greedy(
    start: Mapping[str, Any],
    steps: Mapping[str, Sequence[Any]],
    evaluate: Callable[[Params], tuple[float, float]],
    goal: float,
) -> list[Visited]:
    """Lower one dimension at a time, always where the score falls least for the cost saved, until the goal is met.

    From "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications" (2018), with measured costs and
    steps of one or two values. Ends early when no step saves cost any more. Every point visited is worth giving to a
    study: ``study.add(point.params, Evaluation(...), note="greedy")``.

    Args:
        start: dimension name to value; also dimensions that stay as they are.
        steps: for every dimension to lower, the values below its start, the nearest first.
        evaluate: gives a point's score and cost; called once for each distinct point.
        goal: the cost to reach.

    Returns:
        All points in the order of their first visit.

    Raises:
        ConfigError: ``steps`` names a dimension that ``start`` lacks.

    >>> points = greedy({"a": 2, "b": 2}, {"a": [1], "b": [1]}, lambda p: (-2.0 * p["a"] - p["b"], p["a"] + p["b"]), 3)
    >>> [p.params for p in points if p.taken]
    [{'a': 2, 'b': 2}, {'a': 1, 'b': 2}]
    """
    for name in steps:
        if name not in start:
            raise ConfigError(f"steps names {name!r}, which the start lacks; it has {', '.join(start)}")
    seen: dict[tuple[int, ...], tuple[float, float]] = {}
    names = list(steps)

    def point(depth: tuple[int, ...]) -> Params:
        lowered = {n: steps[n][d - 1] for n, d in zip(names, depth, strict=True) if d}
        return {**start, **lowered}

    def look(depth: tuple[int, ...]) -> tuple[float, float]:
        if depth not in seen:
            seen[depth] = evaluate(point(depth))
        return seen[depth]

    here = (0,) * len(names)
    path = [here]
    least = _LEAST_SAVING * look(here)[1]
    while look(here)[1] > goal:
        score, cost = look(here)
        candidates = [(look(d), d) for d in _lower(here, [len(steps[n]) for n in names])]
        saving = [((score - s) / (cost - c), d) for (s, c), d in candidates if cost - c > least]
        if not saving:
            break
        here = min(saving)[1]
        path.append(here)
    return [Visited(point(d), *seen[d], taken=d in path) for d in seen]


def _lower(depth: tuple[int, ...], limits: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The points one or two steps down in one dimension."""
    for i, step in itertools.product(range(len(depth)), range(1, _REACH + 1)):
        if depth[i] + step <= limits[i]:
            yield (*depth[:i], depth[i] + step, *depth[i + 1 :])
