"""Where the units of a walk are done: in this process, in several, or on a Ray cluster."""

import concurrent.futures as futures
import dataclasses
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch

from netfit.errors import ConfigError, NetfitError
from netfit.search import ray_cluster

from ._identity import tensors_digest
from ._trainer import Trainer
from ._units import Study

__all__ = ["Workers"]

Outcome = dict[str, Any]
Work = Callable[..., Outcome]
Unit = tuple[Any, ...]


class Workers:
    """Does units of work and says how many are done.

    Args:
        study: sent to every worker once.
        n_jobs: processes; 1 works in this one.
        progress: called with units done and known so far.
        ray: address of a Ray cluster that does the work instead; see `netfit.search.ray_cluster`.

    Raises:
        ConfigError: the study cannot be sent to worker processes, or there is no such cluster.
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self, study: Study, n_jobs: int, progress: Callable[[int, int], None] | None, ray: str | None = None
    ) -> None:
        self.study, self.progress = study, progress
        self.done = self.total = 0
        self._stack = ExitStack()
        self._pool: futures.ProcessPoolExecutor | None = None
        self._ray = self._stack.enter_context(ray_cluster(ray)) if ray else None
        if self._ray is None and n_jobs > 1:
            try:
                ForkingPickler.dumps(study)
            except Exception as e:  # whatever the objects it holds may raise
                raise ConfigError(
                    f"the walk cannot be sent to worker processes ({e}); build networks in a module, or use n_jobs=1"
                ) from None
            context = multiprocessing.get_context("spawn")
            self._pool = futures.ProcessPoolExecutor(n_jobs, context, initializer=_begin, initargs=(study,))
            self._stack.callback(self._pool.shutdown, cancel_futures=True)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, work: Work, units: Sequence[Unit]) -> list[Outcome]:
        """Results in the order of the units."""
        self.total += len(units)
        if self._ray is not None:
            found = dict(self._count(pair) for pair in self._on_ray(work, units))
        elif self._pool is None:
            found = dict(self._count((i, work(self.study, *unit))) for i, unit in enumerate(units))
        else:
            places = {self._pool.submit(_there, work, unit): i for i, unit in enumerate(units)}
            found = dict(self._count((places[f], f.result())) for f in futures.as_completed(places))
        return [found[i] for i in range(len(units))]

    def _on_ray(self, work: Work, units: Sequence[Unit]) -> Iterator[tuple[int, Outcome]]:
        """A cluster's machines do not share this folder: what they find is kept here, unit by unit."""
        ray, memo = self._ray, self.study.memo
        assert ray is not None
        keys = [self._identity() | {"unit": [work.__name__, *unit]} for unit in units] if memo is not None else []
        task = ray.remote(num_cpus=1, max_retries=2)(_alone)
        study = ray.put(dataclasses.replace(self.study, folder=None))
        flying: dict[Any, int] = {}
        for i, unit in enumerate(units):
            known = None if memo is None else memo.get(keys[i])
            if known is None:
                flying[task.remote(study, work, unit)] = i
            else:
                yield i, known
        while flying:
            [done], _ = ray.wait(list(flying), num_returns=1)
            i = flying.pop(done)
            try:
                outcome = ray.get(done)
            except NetfitError as e:  # Ray's error is also of the class raised there, with its whole traceback as text
                raise (getattr(e, "cause", None) or e) from None
            if memo is not None:
                memo.put(keys[i], outcome)
            yield i, outcome

    def _identity(self) -> dict[str, Any]:
        """Everything a unit's outcome depends on but the unit."""
        s = self.study
        subject = s.subject.identity() if isinstance(s.subject, Trainer) else tensors_digest(
            s.subject.state_dict().values())  # fmt: skip
        return {
            "subject": subject, "noise": [s.noise.name, s.noise.settings()], "data": tensors_digest(s.data), "at": s.at,
            "seeds": s.seeds, "levels": s.levels, "largest": s.largest, "budgets": s.budgets,
        }  # fmt: skip

    def _count(self, pair: tuple[int, Outcome]) -> tuple[int, Outcome]:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)
        return pair


_study: Study  # a worker process's own copy, sent once instead of with every unit


def _begin(study: Study) -> None:
    global _study
    _study = study
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interrupt means


def _there(work: Work, unit: Unit) -> Outcome:
    return work(_study, *unit)


def _alone(study: Study, work: Work, unit: Unit) -> Outcome:
    """On a worker of a cluster."""
    torch.set_num_threads(1)
    return work(study, *unit)
