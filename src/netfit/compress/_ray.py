"""Candidates scored on a Ray cluster.

The driver owns the study and does every measurement itself, one after the other, on its own quiet path to the device:
two can never overlap. The workers do what takes processors, which is to build the candidates and to score them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from netfit.errors import NetfitError
from netfit.search import Trial, ray_cluster

from ._cost import Cost

if TYPE_CHECKING:
    from ._evaluate import Evaluator
    from ._search import Search
    from ._space import Candidate

__all__ = ["on_ray"]


def on_ray(search: Search, trials: int, address: str) -> None:
    """Draw, score and measure until the study holds `trials` finished trials.

    Args:
        search: gives study, evaluator and meter.
        trials: how many.
        address: of a running cluster, such as ``"ray://host:10001"`` or ``"auto"``; ``"local"`` starts one here.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: there is no cluster at that address.
    """
    with ray_cluster(address) as ray:
        _drive(ray, search, trials)


def _drive(ray: Any, search: Search, trials: int) -> None:
    score = ray.remote(num_cpus=1, max_retries=2)(_score)
    evaluator = ray.put(search.evaluator)
    slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
    flying: dict[Any, Trial] = {}
    costs: dict[int, Cost] = {}
    try:
        while True:
            finished = sum(r.state in ("complete", "fail") for r in search.study.trials())
            while len(flying) < slots and finished + len(flying) < trials:
                trial = search.study.ask()
                candidate = search.space.candidate(trial.params)
                settled = search.hopeless(candidate) or _known(search, candidate)
                if settled is not None:
                    search.study.tell(trial, settled)
                    finished += 1
                    continue
                flying[score.remote(evaluator, candidate)] = trial
            if not flying:
                return
            for trial in [t for t in flying.values() if t.number not in costs][:1]:
                candidate = search.space.candidate(trial.params)  # measured while the workers score
                costs[trial.number] = search.meter.cost(search.evaluator.shape(candidate))
            ready, _ = ray.wait(list(flying), timeout=None if len(costs) == len(flying) else 0)
            for task in [t for t in ready if flying[t].number in costs]:
                trial = flying[task]
                _settle(ray, search, trial, task, costs.pop(trial.number))
                del flying[task]
    except BaseException as e:
        for trial in flying.values():
            search.study.retry(trial, f"interrupted: {type(e).__name__}", counted=False)
        raise


def _settle(ray: Any, search: Search, trial: Trial, task: Any, cost: Cost) -> None:
    candidate = search.space.candidate(trial.params)
    try:
        score = float(ray.get(task))
    except NetfitError as e:  # Ray raises an error that is also of the class raised there
        return search.study.fail(trial, str(e).splitlines()[-1])
    search.memo.put(search.key(candidate), {"score": score, "cost": asdict(cost)})
    search.study.tell(trial, search.told(score, cost, search.guess(candidate)))


def _known(search: Search, candidate: Candidate) -> Any:
    """The evaluation of a candidate that was paid for before."""
    found = search.memo.get(search.key(candidate))
    return None if found is None else search.told(found["score"], Cost(**found["cost"]), search.guess(candidate))


def _score(evaluator: Evaluator, candidate: Candidate) -> float:
    """On a worker: build and score one candidate."""
    import torch

    torch.set_num_threads(1)
    return evaluator.score(evaluator.build(candidate))
