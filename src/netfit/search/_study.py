"""A search that can be killed at any moment.

Every trial carries its owner from the moment it exists, so that opening the store again finds the trials of dead
processes. Every draw (of a sampler, of an evaluation) is seeded by the study's seed and the trial's *index*: the
number of trials before it, repetitions not counted. A sampler therefore has no state to restore: it is made anew for
each trial, and an interrupted search draws what the uninterrupted one would have drawn. With the random sampler
that makes the set of points independent of kills and of the number of workers; TPE and NSGA-II also look at the
results there are, so only one worker without kills repeats them exactly.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..env import digest, jsonable
from ..errors import ConfigError, did_you_mean
from ..seeding import derive
from . import _recovery
from ._identity import Identity, settle
from ._owner import me
from ._pareto import pareto_mask
from ._records import Evaluation, Goal, Row, Trial
from ._run import drive
from ._space import Dimension, check_params, check_space
from ._storage import open_storage

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna import Trial as OptunaTrial
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["Study"]

_SAMPLERS = ("tpe", "random", "nsga2")


class Study:
    """A resumable search over a space, thin over :class:`optuna.Study`.

    Opening a store that holds the same study resumes it: trials left running by processes that died are marked
    failed, and their parameters enqueued again, at most twice each.

    Args:
        path_or_url: a directory (holds ``study.db``), a ``.db``/``.sqlite`` file, a ``.log``/``.journal``/``.jsonl``
            journal (network file systems), a database URL, or an Optuna storage.
        space: dimension name to what it may be.
        goal: what is maximized or minimized, and the names of the constraints.
        sampler: ``"tpe"`` (multivariate, constrained), ``"random"``, ``"nsga2"``, or any Optuna sampler, whose state
            is then the caller's to keep.
        seed: of every draw, 0 <= seed < 2**63.
        fingerprint: what results depend on, such as :func:`netfit.env.fingerprint` with the model's digest; JSON-able.
        allow_drift: resume although fingerprint, seed, constraints or space differ from the store's.

    Attributes:
        optuna: the :class:`optuna.Study` underneath, for dashboards and plots.

    Raises:
        ConfigError: an argument cannot be used, or the store holds another study; the message names what differs.
        ArtifactError: the store is damaged or cannot be written.

    >>> import tempfile
    >>> from netfit.search import Categorical, IntChoice
    >>> space = {"width": IntChoice((8, 16, 32)), "bits": Categorical((4, 8))}
    >>> study = Study(tempfile.mkdtemp(), space=space, goal=Goal(constraints=("cost",)), sampler="random")
    >>> def evaluate(trial):
    ...     cost = trial.params["width"] * trial.params["bits"]
    ...     return Evaluation(trial.params["width"], {"cost": cost - 100})
    >>> study.run(evaluate, 20), study.best.params["width"]
    (20, 16)
    """

    optuna: OptunaStudy

    def __init__(
        self,
        path_or_url: str | os.PathLike[str] | BaseStorage,
        *,
        space: Mapping[str, Dimension],
        goal: Goal,
        sampler: str | BaseSampler = "tpe",
        seed: int = 0,
        fingerprint: Mapping[str, Any] | None = None,
        allow_drift: bool = False,
    ) -> None:
        self.space, self.goal, self.seed = check_space(space), goal, seed
        derive(seed)  # a ConfigError when it is no seed
        if isinstance(sampler, str) and sampler not in _SAMPLERS:
            raise ConfigError(f"unknown sampler {sampler!r}; {did_you_mean(sampler, _SAMPLERS)}")
        self._sampler = sampler
        self.optuna = _open(open_storage(path_or_url), goal)
        identity = Identity(self.space, goal, seed, fingerprint or {})
        self._known = settle(self.optuna, identity, allow_drift)
        self._fingerprint = digest(identity.fingerprint)
        self._asked: dict[int, OptunaTrial] = {}
        _recovery.recover(self.optuna, self.space)

    def ask(self) -> Trial:
        """The next point to evaluate: an enqueued one if there is any, else one drawn by the sampler."""
        trials = self.optuna.get_trials(deepcopy=False)
        if not any(t.state.name == "WAITING" for t in trials):
            # Optuna would make the trial first and let us name its owner second; a kill in between would leave a
            # running trial that nobody can tell from a living one. An enqueued trial is born with its owner.
            self.optuna.enqueue_trial({}, user_attrs={"owner": me()})
        asked = self.optuna.ask()
        if asked.user_attrs.get("owner") != me():
            asked.set_user_attr("owner", me())
        if asked.number >= len(trials):
            trials = self.optuna.get_trials(deepcopy=False)
        index = _recovery.indices(trials)[asked.number]
        self.optuna.sampler = self._make_sampler(derive(self.seed, "sampler", index) % 2**32)
        stored = {name: dimension.suggest(asked, name) for name, dimension in self.space.items()}
        self._asked[asked.number] = asked
        params = {name: self.space[name].decode(value) for name, value in stored.items()}
        return Trial(asked.number, params, derive(self.seed, "trial", index))

    def tell(self, trial: Trial, evaluation: Evaluation) -> None:
        """Record what an asked trial turned out to be.

        A value or constraint that is not finite records a failure.

        Raises:
            ConfigError: the trial was not asked here, or the constraints are not those of the goal.
        """
        problem = self._check(evaluation)
        if problem:
            return self.fail(trial, problem)
        asked = self._running(trial)
        asked.set_user_attr("record", self._record(evaluation))
        for name, value in evaluation.constraints.items():
            asked.set_constraint(name, float(value))
        self.optuna.tell(asked, float(evaluation.value))
        del self._asked[trial.number]

    def fail(self, trial: Trial, reason: str) -> None:
        """Record that an asked trial could not be evaluated; the sampler learns nothing from it.

        Raises:
            ConfigError: the trial was not asked here.
        """
        from optuna.trial import TrialState

        asked = self._running(trial)
        asked.set_user_attr("error", reason)
        self.optuna.tell(asked, state=TrialState.FAIL)
        del self._asked[trial.number]

    def retry(self, trial: Trial, reason: str, counted: bool = True) -> None:
        """Record that an asked trial was interrupted, and enqueue its point again.

        Args:
            trial: what :meth:`ask` gave.
            reason: what interrupted it.
            counted: whether it may be the trial's own fault: such a trial is enqueued again at most twice.
        """
        asked = self._asked.pop(trial.number, None)
        if asked is not None:
            asked.set_user_attr("error", reason)
            frozen = self.optuna.get_trials(deepcopy=False)[trial.number]
            _recovery.retry(self.optuna, frozen, self.space, counted)

    def run(
        self,
        evaluate: Callable[[Trial], Evaluation],
        n_trials: int,
        *,
        timeout: float | None = None,
        n_jobs: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Evaluate points until the study holds ``n_trials`` finished ones.

        Failed, enqueued and added trials count, repetitions of interrupted ones do not: running a finished search
        again evaluates nothing. A :class:`~netfit.errors.NetfitError` in ``evaluate`` fails its trial and the
        search goes on; any other exception fails it and is raised; an interrupt enqueues what was running again.

        Args:
            evaluate: gives a trial's evaluation; importable by name when ``n_jobs`` > 1.
            n_trials: how many finished trials the study shall hold.
            timeout: seconds after which no new trial is begun.
            n_jobs: worker processes; 1 evaluates in this process.
            progress: called with (finished trials, ``n_trials``) after every trial.

        Returns:
            How many evaluations this call made.

        Raises:
            ConfigError: an argument cannot be used.
        """
        return drive(self, evaluate, n_trials, timeout, n_jobs, progress)

    def enqueue(self, params: Mapping[str, Any], note: str | None = None) -> None:
        """Have a point evaluated before the sampler draws more.

        Args:
            params: dimension name to value, complete.
            note: where the point comes from; shown in its row.

        Raises:
            ConfigError: the point is not in the space.
        """
        stored = check_params(self.space, params)
        self.optuna.enqueue_trial(stored, user_attrs={"owner": me(), "note": note})

    def add(self, params: Mapping[str, Any], evaluation: Evaluation, note: str | None = None) -> None:
        """Record a point that was evaluated elsewhere, such as in a greedy descent.

        A complete trial with the same point and note is left as it is, so that a resumed job adds nothing twice.

        Args:
            params: dimension name to value, complete.
            evaluation: what the point turned out to be.
            note: where it comes from; shown in its row.

        Raises:
            ConfigError: the point is not in the space, or the evaluation is not finite or lacks a constraint.
        """
        from optuna.trial import create_trial

        stored = check_params(self.space, params)
        problem = self._check(evaluation)
        if problem:
            raise ConfigError(f"cannot add {dict(params)}: {problem}")
        if any(r.state == "complete" and r.note == note and r.params == dict(params) for r in self.trials()):
            return
        trial = create_trial(
            value=float(evaluation.value),
            params=stored,
            distributions={name: d.distribution() for name, d in self.space.items()},
            user_attrs={"owner": me(), "note": note, "record": self._record(evaluation)},
        )
        for name, value in evaluation.constraints.items():
            trial.set_constraint(name, float(value))
        self.optuna.add_trial(trial)

    @property
    def best(self) -> Row | None:
        """The feasible trial with the best value; of equals the one with the lower constraints. None without any."""
        sign = -1.0 if self.goal.maximize else 1.0

        def order(row: Row) -> tuple[float, ...]:
            return (
                sign * (row.value or 0.0),
                *(row.constraints.get(c, 0.0) for c in self.goal.constraints),
                row.number,
            )

        return min((r for r in self.trials() if r.feasible), key=order, default=None)

    def pareto(self) -> list[Row]:
        """The complete trials that no other one beats in value and every constraint, feasible or not."""
        names = self.goal.constraints
        rows = [r for r in self.trials() if r.state == "complete" and set(names) <= r.constraints.keys()]
        if not rows:
            return []
        points = [[r.value or 0.0, *(r.constraints[c] for c in names)] for r in rows]
        mask = pareto_mask(points, [self.goal.maximize] + [False] * len(names))
        return [r for r, kept in zip(rows, mask, strict=True) if kept]

    def trials(self) -> list[Row]:
        """Every trial of the store, in order of its number."""
        trials = self.optuna.get_trials(deepcopy=False)
        return [self._row(t, i) for t, i in zip(trials, _recovery.indices(trials), strict=True)]

    def _row(self, trial: FrozenTrial, index: int) -> Row:
        record = trial.user_attrs.get("record", {})
        untold = "its process ended" if trial.state.name == "FAIL" else None
        return Row(
            number=trial.number,
            state=trial.state.name.lower(),
            params={n: self._known[n].decode(v) for n, v in trial.params.items() if n in self._known},
            seed=derive(self.seed, "trial", index),
            value=trial.value if trial.state.name == "COMPLETE" else None,
            constraints=dict(trial.constraints),
            attrs=record.get("attrs", {}),
            error=trial.user_attrs.get("error", untold),
            note=trial.user_attrs.get("note"),
            fingerprint=record.get("fingerprint"),
        )

    def _record(self, evaluation: Evaluation) -> dict[str, Any]:
        attrs = json.loads(json.dumps(dict(evaluation.attrs), default=jsonable))
        return {"attrs": attrs, "fingerprint": self._fingerprint}

    def _running(self, trial: Trial) -> OptunaTrial:
        if trial.number not in self._asked:
            raise ConfigError(f"trial {trial.number} is not running here: tell what ask() gave, once")
        return self._asked[trial.number]

    def _check(self, evaluation: Evaluation) -> str | None:
        """What makes an evaluation a failure; a ConfigError when it is no evaluation for this goal."""
        if not isinstance(evaluation, Evaluation):
            raise ConfigError(f"evaluate must return an Evaluation, not {evaluation!r}")
        for name in evaluation.constraints:
            if name not in self.goal.constraints:
                raise ConfigError(f"the goal has no constraint {name!r}; {did_you_mean(name, self.goal.constraints)}")
        for name in self.goal.constraints:
            if name not in evaluation.constraints:
                raise ConfigError(f"the evaluation lacks the goal's constraint {name!r}")
        numbers = {"value": evaluation.value, **evaluation.constraints}
        wrong = [f"{name} is {number}" for name, number in numbers.items() if not math.isfinite(number)]
        return "; ".join(wrong) or None

    def _make_sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

        if not isinstance(self._sampler, str):
            return self._sampler
        if self._sampler == "random":
            return RandomSampler(seed=seed)
        if self._sampler == "nsga2":
            return NSGAIISampler(seed=seed)
        # The liar keeps workers apart: it takes what is still running for bad.
        return TPESampler(multivariate=True, constant_liar=bool(self._asked), seed=seed)


def _open(storage: BaseStorage, goal: Goal) -> OptunaStudy:
    import optuna

    if optuna.logging.get_verbosity() == optuna.logging.INFO:  # Optuna's default tells every study it makes
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=storage,
        study_name="netfit",
        direction="maximize" if goal.maximize else "minimize",
        load_if_exists=True,
    )
