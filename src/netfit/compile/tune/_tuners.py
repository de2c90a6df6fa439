"""Who chooses the next configurations: they are asked for a batch and told what it gave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from netfit.errors import ConfigError, did_you_mean

from .._space import Config, Space
from ._initial import spread
from ._records import Outcome

__all__ = ["GeneticTuner", "GridTuner", "ModelTuner", "OptunaTuner", "RandomTuner", "Tuner", "make"]

_POOL = 20_000  # candidates of a space too large to list
_WORTH = 0.01  # a batch that promises less improvement than this counts as idle


class Tuner(ABC):
    """Chooses configurations of a space; deterministic for a seed and the outcomes it is told.

    Args:
        space: where to choose.
        seed: of every draw.
        batch_size: configurations of one question.

    Attributes:
        seen: outcome of every configuration told.
    """

    name: ClassVar[str]

    def __init__(self, space: Space, seed: int = 0, batch_size: int = 16) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size = {batch_size} must be at least 1")
        self.space, self.seed, self.batch_size = space, seed, batch_size
        self.seen: dict[Config, Outcome] = {}
        self._rng = np.random.default_rng(seed)

    @abstractmethod
    def ask(self) -> list[Config]:
        """Configurations not seen before; none when the tuner is done."""

    def tell(self, outcomes: Mapping[Config, Outcome]) -> None:
        """What configurations gave, asked for or not."""
        self.seen.update(outcomes)

    def best(self) -> tuple[Config, float] | None:
        """The fastest configuration so far and its seconds."""
        timed = [(o.seconds, c) for c, o in self.seen.items() if o.seconds is not None]
        return (min(timed)[1], min(timed)[0]) if timed else None

    def _fresh(self, configs: Sequence[Config]) -> list[Config]:
        return [c for c in dict.fromkeys(configs) if c not in self.seen]


class GridTuner(Tuner):
    """All valid configurations, in order."""

    name = "grid"

    def ask(self) -> list[Config]:
        """The next ones of the list."""
        return self._fresh(self.space.valid)[: self.batch_size]


class RandomTuner(Tuner):
    """Valid configurations in random order; with ``static`` off, all of them."""

    name = "random"

    def __init__(self, space: Space, seed: int = 0, batch_size: int = 16, static: bool = True) -> None:
        super().__init__(space, seed, batch_size)
        self.static = static

    def ask(self) -> list[Config]:
        """Random ones."""
        if self.space.enumerable:
            pool = self._fresh(self.space.valid if self.static else self.space.all)
            return [pool[i] for i in self._rng.permutation(len(pool))[: self.batch_size]]
        return self._fresh(self.space.sample(self._rng, 2 * self.batch_size, self.static))[: self.batch_size]


class GeneticTuner(RandomTuner):
    """Crossover and mutation of the fastest configurations."""

    name = "genetic"
    _ELITE, _MUTATION = 16, 0.2

    def ask(self) -> list[Config]:
        """Children of two of the fastest; random ones at first, and where no new children are found."""
        timed = sorted((o.seconds, c) for c, o in self.seen.items() if o.seconds is not None)
        parents = [c for _, c in timed[: self._ELITE]]
        if len(parents) < 2:
            return super().ask()
        children: dict[Config, None] = {}
        for _ in range(50 * self.batch_size):
            child = self._child(parents)
            if child not in self.seen and (not self.static or self.space.why(child) is None):
                children[child] = None
            if len(children) == self.batch_size:
                break
        return list(children) or super().ask()

    def _child(self, parents: list[Config]) -> Config:
        a, b = (parents[i] for i in self._rng.choice(len(parents), 2, replace=False))
        child = [int(self._rng.choice(pair)) for pair in zip(a, b, strict=True)]
        for place, values in enumerate(self.space.knobs.values()):
            if self._rng.random() < self._MUTATION:
                child[place] = int(self._rng.choice(values))
        return tuple(child)


class ModelTuner(Tuner):
    """Measures what a model of the time ranks first; the reference algorithm.

    Valid configurations start it, spread over their clusters. The model learns the logarithm of the time of valid
    records; the next batch is what it ranks first, and one random point. Where rules say nothing, a second model learns
    which configurations run, and its probability weighs the rank.

    Source: "HW-Aware Initialization of DNN Auto-Tuning to Improve Exploration Time and Robustness" (2022).

    Args:
        space: where to choose.
        seed: of every draw.
        batch_size: configurations of one question.
        model: ``"forest"`` (extremely randomised trees) or ``"boosted"`` (gradient-boosted trees).
        validity: ``"static"`` (only what breaks no rule), ``"learned"`` (rules are not asked), or ``"penalty"``: as
            AutoTVM does, all points are candidates and invalid ones count as infinitely slow.
        knobs_only: the model sees no hardware features.
        use_estimate: half of the start is what the space's estimate ranks first.

    Attributes:
        idle: batches in a row that promised less than 1 % improvement.
    """

    name = "model"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        batch_size: int = 8,
        model: Literal["forest", "boosted"] = "forest",
        validity: Literal["static", "learned", "penalty"] = "static",
        knobs_only: bool = False,
        use_estimate: bool = True,
    ) -> None:
        super().__init__(space, seed, batch_size)
        self.model, self.validity, self.knobs_only, self.use_estimate = model, validity, knobs_only, use_estimate
        self.idle = 0
        if space.enumerable:
            self._pool = space.valid if validity == "static" else space.all
        else:
            self._pool = space.sample(self._rng, _POOL, validity == "static")
        if not self._pool:
            raise ConfigError(f"no configuration of {space.name} is valid: {space.why_invalid()}")
        self._columns = (space.logs if knobs_only else space.features)(self._pool)

    def ask(self) -> list[Config]:
        """The start, then what the model ranks first and one random point."""
        left = np.array([i for i, c in enumerate(self._pool) if c not in self.seen], np.int64)
        if not len(left):
            return []
        timed = [i for i, c in enumerate(self._pool) if c in self.seen and self.seen[c].seconds is not None]
        if len(timed) < 2:
            return self._start(left)
        score, promise = self._score(left, timed)
        self.idle = self.idle + 1 if promise < _WORTH else 0
        order = left[np.argsort(-score, kind="stable")]
        count = self.batch_size - 1 if self.batch_size > 1 else 1
        chosen = list(order[:count])
        rest = order[count:]
        if len(rest) and self.batch_size > 1:
            chosen.append(int(self._rng.choice(rest)))
        return [self._pool[i] for i in chosen]

    def _start(self, left: np.ndarray) -> list[Config]:
        if self.validity == "static":
            return spread(self.space, [self._pool[i] for i in left], self.batch_size, self._rng, self.use_estimate)
        if self.validity == "learned" and self.seen:
            ran = self._runs(left)
            order = left[np.argsort(-(ran + 1e-3 * self._rng.random(len(left))))]
            return [self._pool[i] for i in order[: self.batch_size]]
        return [self._pool[i] for i in self._rng.choice(left, min(self.batch_size, len(left)), replace=False)]

    def _score(self, left: np.ndarray, timed: list[int]) -> tuple[np.ndarray, float]:
        """Rank of every candidate, and the improvement the model expects of the first."""
        target = np.array([-np.log(self.seen[self._pool[i]].seconds or 1.0) for i in timed])
        rows = list(timed)
        if self.validity == "penalty":
            bad = [i for i, c in enumerate(self._pool) if c in self.seen and self.seen[c].seconds is None]
            # Throughput of the slowest is far above nothing: invalid points are a decade below it.
            rows, target = rows + bad, np.concatenate([target, np.full(len(bad), target.min() - np.log(10.0))])
        model = _regressor(self.model, self.seed + len(self.seen))
        model.fit(self._columns[rows], target)
        guess = model.predict(self._columns[left])
        promise = float(np.exp(guess.max() - target.max()) - 1)
        if self.validity != "learned":
            return guess, promise
        rank = np.argsort(np.argsort(guess)) / max(1, len(guess) - 1)
        return rank * self._runs(left), promise

    def _runs(self, left: np.ndarray) -> np.ndarray:
        """Probability that a configuration runs, by a forest over all outcomes."""
        from sklearn.ensemble import ExtraTreesClassifier

        rows = [i for i, c in enumerate(self._pool) if c in self.seen]
        ran = np.array([self.seen[self._pool[i]].seconds is not None for i in rows])
        if ran.all() or not ran.any():
            return np.ones(len(left))
        forest = ExtraTreesClassifier(40, class_weight="balanced", random_state=self.seed + len(rows))
        return np.asarray(forest.fit(self._columns[rows], ran).predict_proba(self._columns[left])[:, 1])


class _Forest:
    """scikit-learn's ExtraTreesRegressor, tree by tree: the same numbers, without checks and threads for each tree."""

    def __init__(self, trees: int, seed: int) -> None:
        self._trees, self._seed = trees, seed

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        from sklearn import config_context
        from sklearn.tree import ExtraTreeRegressor

        draw = np.random.RandomState(self._seed)
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float64)
        with config_context(skip_parameter_validation=True):
            self._fitted = [
                ExtraTreeRegressor(random_state=draw.randint(np.iinfo(np.int32).max)).fit(x, y, check_input=False)
                for _ in range(self._trees)
            ]

    def predict(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float32)
        return np.asarray(sum(tree.tree_.predict(x).ravel() for tree in self._fitted) / self._trees)


def _regressor(kind: str, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    if kind == "forest":
        return _Forest(30, seed)
    return HistGradientBoostingRegressor(max_iter=60, min_samples_leaf=2, random_state=seed)


class OptunaTuner(Tuner):
    """Any Optuna sampler over the grid, in memory: its storages cost more than a simulated attempt."""

    name = "optuna"

    def __init__(self, space: Space, seed: int = 0, batch_size: int = 16) -> None:
        import optuna

        super().__init__(space, seed, batch_size)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self._distributions: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(values) for name, values in space.knobs.items()
        }
        self._open: dict[Config, Any] = {}
        self._state = optuna.trial.TrialState

    def ask(self) -> list[Config]:
        """What the sampler proposes and no rule forbids; random ones when it only repeats itself."""
        found: dict[Config, Any] = {}
        for _ in range(20 * self.batch_size):
            trial = self._study.ask(self._distributions)
            config = tuple(int(trial.params[name]) for name in self.space.knobs)
            if config in self.seen or config in found or self.space.why(config) is not None:
                self._study.tell(trial, state=self._state.FAIL)
                continue
            found[config] = trial
            if len(found) == self.batch_size:
                break
        self._open |= found
        return list(found) or self._fresh(self.space.sample(self._rng, 4 * self.batch_size))[: self.batch_size]

    def tell(self, outcomes: Mapping[Config, Outcome]) -> None:
        """Told to the study, too."""
        for config, outcome in outcomes.items():
            if (trial := self._open.pop(config, None)) is not None:
                if outcome.seconds is None:
                    self._study.tell(trial, state=self._state.FAIL)
                else:
                    self._study.tell(trial, float(np.log(outcome.seconds)))
        super().tell(outcomes)


_NAMES = ("boosted", "forest", "genetic", "grid", "optuna", "random")


def make(name: str, space: Space, seed: int = 0, batch_size: int | None = None) -> Tuner:
    """A tuner by name: grid, random, genetic, forest, boosted or optuna.

    Raises:
        ConfigError: another name.
    """
    if name in ("forest", "boosted"):
        return ModelTuner(space, seed, batch_size or 8, "forest" if name == "forest" else "boosted")
    plain = {"grid": GridTuner, "random": RandomTuner, "genetic": GeneticTuner, "optuna": OptunaTuner}
    if name not in plain:
        raise ConfigError(f"no tuner {name!r}; {did_you_mean(name, _NAMES)}")
    return plain[name](space, seed, batch_size or 16)
