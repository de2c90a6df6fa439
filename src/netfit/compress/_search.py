"""The search: seeds that are known to be good, then constrained TPE, everything in one resumable study.

1. `uniform`: all layers at the narrowest precision, all groups at one fraction, bisected to the goal.
2. `greedy`: each group halved alone gives its price (score lost) and its worth (cost saved); a greedy descent on
   the sum of these picks the groups, and is corrected by what its end point really costs. The additive model is
   only a seed: searching it to its optimum exploits its errors.
3. `climb`: from the best candidate so far, one group a step wider, or one wider and another narrower, as long as the
   goal holds and the score rises.
4. The sampler (TPE with the goal as a constraint, NSGA-II, random, or an agent) for the rest of the trials.

Where a sampler ranks candidates that miss the goal by how far they miss it (TPE, NSGA-II), those that are hopeless by
the predictor are told to it with their predicted cost, and neither built nor measured nor counted.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netfit.env import digest
from netfit.errors import ConfigError, did_you_mean
from netfit.search import Evaluation, Goal, Memo, Row, Study, Trial, greedy

from ._cost import Cost, Meter
from ._evaluate import Evaluator
from ._predict import Guess, Predictor, quality
from ._ray import on_ray
from ._space import Candidate, SearchSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["SAMPLERS", "Search", "drawn_by"]

SAMPLERS = ("auto", "tpe", "random", "uniform", "nsga2", "ddpg-prune", "ddpg-quantize", "ddpg-joint")
SKIPPING = ("auto", "tpe", "nsga2")
SENSED = 256  # images an agent's sensitivities are measured on
BISECTIONS = 4
CORRECTIONS = 3
Progress = Callable[[dict[str, Any]], None]


def drawn_by(sampler: str) -> str:
    """What drew the trials that carry no note."""
    return "tpe" if sampler == "auto" else sampler


class Search:
    """One search for the best candidate at a cost ratio.

    Args:
        space: what to choose from.
        evaluator: scores a candidate.
        meter: costs it.
        goal: largest cost ratio allowed.
        folder: holds ``study.db`` and ``memo.db``; an interrupted search goes on from them.
        seed: of the sampler.
        sampler: one of `SAMPLERS`; ``"ddpg-..."`` are Galen's agents, which keep their state in `folder`.
        identity: what else results depend on (the weights' digest, the data); a resumed search must agree.
        progress: called after each trial.
        at: the candidate that keeps a fraction of the channels, for the bisection; `SearchSpace.uniform` by default.
        store: where the study is kept, if not in the folder (see `netfit.search.Study`).
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluator: Evaluator,
        meter: Meter,
        *,
        goal: float,
        folder: Path,
        seed: int = 0,
        sampler: str = "auto",
        identity: Any = None,
        progress: Progress | None = None,
        at: Callable[[float], Candidate] | None = None,
        store: str | None = None,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ConfigError(f"unknown sampler {sampler!r}: {did_you_mean(sampler, SAMPLERS)}")
        self.space, self.evaluator, self.meter, self.goal = space, evaluator, meter, goal
        self.sampler, self.progress, self.identity = sampler, progress, digest(identity)
        self.at = at or space.uniform
        self.predictor = Predictor(space)
        self.memo = Memo(folder / "memo.db")
        self.study = Study(
            store or folder,
            space=space.dimensions(),
            goal=Goal(constraints=("latency",)),
            sampler=self._sampler(folder, seed),
            seed=seed,
            fingerprint={"identity": self.identity, "goal": goal},
        )

    def _sampler(self, folder: Path, seed: int) -> "str | BaseSampler":
        if not self.sampler.startswith("ddpg-"):
            return self.sampler if self.sampler in ("random", "nsga2") else "tpe"
        from .agents import DdpgSampler, measure_damage

        agent, evaluator = self.sampler.removeprefix("ddpg-"), self.evaluator
        damage = self.memo.call(
            [self.identity, "damage", agent],
            lambda: measure_damage(evaluator.model, evaluator.calibration[:SENSED], self.space, agent),
        )
        return DdpgSampler(self.space, agent, damage, goal=self.goal, folder=folder, seed=seed)

    def run(self, trials: int, helping: bool = False, ray: str | None = None) -> list[Row]:
        """Evaluate until the study holds `trials` evaluated trials; returns the complete ones.

        Args:
            trials: how many.
            helping: another process works on this study and sees to the seeds.
            ray: address of a Ray cluster to score candidates on.

        Raises:
            ConfigError: an agent, whose state is one process's, is to be helped.
        """
        if (helping or ray) and self.sampler.startswith("ddpg-"):
            raise ConfigError(f"sampler {self.sampler!r} learns in one process: it can neither be helped nor use Ray")
        if self.sampler in ("auto", "uniform") and not helping:
            self._uniform()
        if self.sampler == "auto" and not helping:
            self._greedy()
            self._climb(trials)
        if self.sampler != "uniform":
            self._sample(trials, ray)
        return self._measured()

    def prediction(self) -> dict[str, Any]:
        """What the predictor saved, and how good its guesses were: ``skipped``, ``guessed``, ``mape``, ``spearman``."""
        return quality(self._measured(), self._skipped())

    def _measured(self) -> list[Row]:
        return [r for r in self.study.trials() if r.state == "complete" and "cost" in r.attrs]

    def _skipped(self) -> int:
        return sum(r.state == "complete" and "cost" not in r.attrs for r in self.study.trials())

    def _sample(self, trials: int, ray: str | None) -> None:
        """Let the sampler draw until `trials` are evaluated; skipped ones cost nothing and at most double the draws."""
        aim = trials
        while True:
            if ray:
                on_ray(self, aim, ray)
            else:
                self.study.run(self._drawn, aim)
            wanted = min(trials + self._skipped(), 2 * trials)
            if wanted <= aim:
                return
            aim = wanted

    def _drawn(self, trial: Trial) -> Evaluation:
        candidate = self.space.candidate(trial.params)
        return self.hopeless(candidate) or self._evaluation(candidate)

    def hopeless(self, candidate: Candidate) -> Evaluation | None:
        """What the study is told of a candidate that the predictor gives no chance; None for all others."""
        guess = self.guess(candidate)
        if guess is None or guess.least <= self.goal or self.sampler not in SKIPPING:
            return None
        return Evaluation(0.0, {"latency": guess.ratio - self.goal}, {"guess": guess.ratio})

    def guess(self, candidate: Candidate) -> Guess | None:
        """What the predictor says of a candidate, once it has seen enough."""
        return self.predictor.guess(candidate, self._measured())

    def evaluate(self, candidate: Candidate) -> tuple[float, Cost]:
        """Score and cost of a candidate, paid for once."""

        def measure() -> dict[str, Any]:
            model = self.evaluator.build(candidate)
            return {"score": self.evaluator.score(model), "cost": asdict(self.meter.cost(model))}

        found = self.memo.call(self.key(candidate), measure)
        return float(found["score"]), Cost(**found["cost"])

    def key(self, candidate: Candidate) -> list[Any]:
        """What the memo knows a candidate by."""
        return [self.identity, asdict(candidate)]

    def _evaluation(self, candidate: Candidate, origin: str | None = None) -> Evaluation:
        guess = self.guess(candidate)
        return self.told(*self.evaluate(candidate), guess, origin)

    def told(self, score: float, cost: Cost, guess: Guess | None, origin: str | None = None) -> Evaluation:
        """What the study is told of a candidate, and the user with it."""
        if self.progress:
            done = len(self._measured()) + 1  # this one is stored next
            self.progress(
                {"trials": done, "score": score, "ratio": cost.ratio, "origin": origin or drawn_by(self.sampler)}
            )
        attrs = {"cost": asdict(cost), "guess": None if guess is None else guess.ratio}
        return Evaluation(score, {"latency": cost.ratio - self.goal}, attrs)

    def _add(self, candidate: Candidate, note: str) -> Evaluation:
        evaluation = self._evaluation(candidate, note)
        self.study.add(self.space.params(candidate), evaluation, note=note)
        return evaluation

    def _uniform(self) -> None:
        """Largest uniform width that meets the goal, by bisection between nothing pruned and nearly everything."""
        low, high = 0.0, 1.0
        if self._add(self.at(high), "uniform").constraints["latency"] <= 0:
            return
        if self._add(self.at(low), "uniform").constraints["latency"] > 0:
            return  # this is the floor: no candidate of this space is expected below it
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            met = self._add(self.at(middle), "uniform").constraints["latency"] <= 0
            low, high = (middle, high) if met else (low, middle)

    def _greedy(self) -> None:
        """Descend an additive model of score and cost from the narrowest precision until the goal is met."""
        start = self.space.uniform(1.0)
        groups = [g for g, s in self.space.steps.items() if len(s) > 1]
        score, cost = self.evaluate(start)
        if cost.ratio <= self.goal or not groups:
            return
        price: dict[str, tuple[float, float, float]] = {}
        for group in groups:
            steps = self.space.steps[group]
            half = min(steps, key=lambda n: abs(n - steps[-1] / 2))
            probe = self._add(replace(start, keep={**start.keep, group: half}), "sensitivity")
            removed = 1 - half / steps[-1]
            saved = max(0.0, cost.ratio - (probe.constraints["latency"] + self.goal))
            price[group] = (removed, max(0.0, score - probe.value), saved)

        def predict(keep: dict[str, Any]) -> tuple[float, float]:
            lost = saved = 0.0
            for group, (removed, drop, saving) in price.items():
                share = (1 - keep[group] / self.space.steps[group][-1]) / removed
                # the damage of pruning grows faster than the share removed, its saving about in proportion
                lost, saved = lost + (drop + 1e-3) * share**2, saved + saving * share
            return score - lost, cost.ratio - saved

        aim = self.goal
        for _ in range(CORRECTIONS):
            lower = {g: tuple(reversed(self.space.steps[g][:-1])) for g in groups}
            path = [v for v in greedy({g: start.keep[g] for g in groups}, lower, predict, aim) if v.taken]
            end = replace(start, keep={**start.keep, **path[-1].params})
            excess = self._add(end, "greedy").constraints["latency"]
            if excess <= 0 and excess > -0.02:
                break
            aim -= excess if excess > 0 else excess / 2

    def _climb(self, trials: int) -> None:
        """Hill climbing on real evaluations, for at most half of the trials that are left."""
        rows = self.study.trials()
        budget = (trials - len(rows)) // 2
        best = self.study.best
        while best is not None and budget > 0:
            here = self.space.candidate(best.params)
            known = {digest(asdict(self.space.candidate(r.params))) for r in rows if r.state == "complete"}
            moves = [c for c in self._neighbours(here) if digest(asdict(c)) not in known][:budget]
            for candidate in moves:
                self._add(candidate, "climb")
            budget -= len(moves)
            rows, last = self.study.trials(), best.number
            best = self.study.best
            if not moves or best is None or best.number == last:
                return

    def _neighbours(self, candidate: Candidate) -> list[Candidate]:
        """One group a step wider; then the same with another group a step narrower."""

        def moved(group: str, by: int) -> dict[str, int] | None:
            steps = self.space.steps[group]
            at = steps.index(candidate.keep[group]) + by
            return {group: steps[at]} if 0 <= at < len(steps) else None

        wider = [m for g in self.space.steps if (m := moved(g, 1))]
        narrower = [m for g in self.space.steps if (m := moved(g, -1))]
        pairs = [w | n for w in wider for n in narrower if not w.keys() & n.keys()]
        return [replace(candidate, keep={**candidate.keep, **change}) for change in wider + pairs]
