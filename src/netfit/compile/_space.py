"""A space of configurations: knobs on a grid, static rules that say why a point is invalid, features, an estimate."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

__all__ = ["Config", "Space"]

Config = tuple[int, ...]
Floats = NDArray[np.float64]
_MOST_ENUMERATED = 200_000


def _no_rule(_: Config) -> str | None:
    return None


class Space:
    """Knobs and their values; most combinations may be invalid.

    Up to 200,000 points are enumerated. Larger spaces are only sampled, so they take no memory.

    Args:
        name: of what is tuned; part of the key of every record.
        knobs: values of each knob, ascending integers.
        why: the first static rule a configuration breaks; None when it breaks none.
        features: columns of hardware features of many configurations, beside the logarithms of the knobs.
        estimate: a quick guess of seconds for many configurations; only its order is used.
        points: the configurations there are, where they are not the whole grid.

    Raises:
        ConfigError: a knob without values.

    >>> space = Space("toy", {"a": (1, 2, 4), "b": (1, 2)}, lambda c: "product" if c[0] * c[1] > 4 else None)
    >>> space.size, space.why_invalid(), space.neighbours((2, 1))
    (6, {'ok': 5, 'product': 1}, [(1, 1), (4, 1), (2, 2)])
    """

    def __init__(
        self,
        name: str,
        knobs: Mapping[str, Sequence[int]],
        why: Callable[[Config], str | None] = _no_rule,
        features: Callable[[Sequence[Config]], Floats] | None = None,
        estimate: Callable[[Sequence[Config]], Floats] | None = None,
        points: Sequence[Config] | None = None,
    ) -> None:
        for knob, values in knobs.items():
            if not values or list(values) != sorted(set(values)):
                raise ConfigError(f"knob {knob!r} of {name} has values {list(values)}: write ascending integers")
        if not knobs:
            raise ConfigError(f"{name} has no knobs to tune")
        self.name, self.knobs = name, {k: tuple(int(v) for v in values) for k, values in knobs.items()}
        self.why, self._features, self.estimate = why, features, estimate
        self._points = None if points is None else [tuple(int(v) for v in p) for p in points]

    @property
    def size(self) -> int:
        """Points, valid or not."""
        return prod(len(v) for v in self.knobs.values()) if self._points is None else len(self._points)

    @property
    def enumerable(self) -> bool:
        """Whether the space is small enough to list."""
        return self.size <= _MOST_ENUMERATED

    def at(self, number: int) -> Config:
        """The point with a number."""
        if self._points is not None:
            return self._points[number]
        config = []
        for values in reversed(self.knobs.values()):
            number, place = divmod(number, len(values))
            config.append(values[place])
        return tuple(reversed(config))

    @functools.cached_property
    def all(self) -> list[Config]:
        """All points.

        Raises:
            ConfigError: there are too many to list.
        """
        if not self.enumerable:
            raise ConfigError(f"{self.name} has {self.size} points, too many to list: sample() draws from them")
        return [self.at(i) for i in range(self.size)]

    @functools.cached_property
    def valid(self) -> list[Config]:
        """Points that break no rule."""
        return [c for c in self.all if self.why(c) is None]

    def why_invalid(self, sample: int = 20_000, seed: int = 0) -> dict[str, int]:
        """How many points break which rule first, before anything is measured.

        Args:
            sample: points drawn from a space too large to list.
            seed: of the draw.
        """
        points = self.all if self.enumerable else self._draw(np.random.default_rng(seed), sample)
        return dict(Counter(self.why(c) or "ok" for c in points).most_common())

    def sample(self, rng: np.random.Generator, count: int, valid: bool = True) -> list[Config]:
        """Different random points.

        Args:
            rng: source of the draw.
            count: how many; fewer when the space holds no more, or in a hundred times as many draws no more are found.
            valid: only points that break no rule.
        """
        if self.enumerable:
            pool = self.valid if valid else self.all
            return [pool[i] for i in rng.permutation(len(pool))[:count]]
        found: dict[Config, None] = {}
        for _ in range(100):
            found |= {c: None for c in self._draw(rng, count) if not valid or self.why(c) is None}
            if len(found) >= count:
                break
        return list(found)[:count]

    def _draw(self, rng: np.random.Generator, count: int) -> list[Config]:
        return [self.at(int(i)) for i in rng.integers(0, self.size, count)]

    def neighbours(self, config: Config) -> list[Config]:
        """Points one step of one knob away."""
        found = []
        known = None if self._points is None else self._known
        for place, values in enumerate(self.knobs.values()):
            at = values.index(config[place])
            for other in (at - 1, at + 1):
                if 0 <= other < len(values):
                    point = (*config[:place], values[other], *config[place + 1 :])
                    if known is None or point in known:
                        found.append(point)
        return found

    @functools.cached_property
    def _known(self) -> set[Config]:
        return set(self._points or ())

    def features(self, configs: Sequence[Config]) -> Floats:
        """Logarithms of the knobs, and the hardware's features where the space has some."""
        plain = self.logs(configs)
        return plain if self._features is None else np.concatenate([plain, self._features(configs)], 1)

    def logs(self, configs: Sequence[Config]) -> Floats:
        """Logarithms of the knobs: (configurations, knobs)."""
        array = np.array(configs, np.float64).reshape(len(configs), len(self.knobs))
        return np.asarray(np.sign(array) * np.log2(1 + np.abs(array)))

    def components(self, configs: Sequence[Config]) -> NDArray[np.int64]:
        """Cluster of every configuration: those connected by steps of one knob share a number."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        number = {c: i for i, c in enumerate(configs)}
        edges = [(i, number[other]) for c, i in number.items() for other in self.neighbours(c) if other in number]
        rows, cols = np.array(edges, np.int64).reshape(-1, 2).T
        graph = coo_matrix((np.ones(len(rows)), (rows, cols)), (len(configs), len(configs)))
        return np.asarray(connected_components(graph, directed=False)[1], np.int64)
