"""The loop that feeds a study, in this process or with worker processes.

The driver owns the study; workers only evaluate. Each worker is a pool of one process, so that one killed by its
evaluation (out of memory, say) names the trial that did it and takes no other with it.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, NetfitError
from ._records import Evaluation, Trial
from ._recovery import recover, spent

if TYPE_CHECKING:
    from ._study import Study

__all__ = ["drive"]

Evaluate = Callable[[Trial], Evaluation]
Outcome = Evaluation | str | BaseException  # a string says why the trial failed


def drive(
    study: Study,
    evaluate: Evaluate,
    n_trials: int,
    timeout: float | None,
    n_jobs: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    """See :meth:`Study.run`."""
    if n_trials < 0 or n_jobs < 1:
        raise ConfigError(f"n_trials must not be negative and n_jobs at least 1, not {n_trials} and {n_jobs}")
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    if sum(spent(study.optuna)) >= n_trials:
        return 0
    others = [r.number for r in study.trials() if r.state == "running"]
    flying: dict[int, Trial] = {}
    evaluations = 0
    with _workers(evaluate, n_jobs) as workers:
        try:
            while True:
                while workers.idle() and time.monotonic() < deadline and sum(spent(study.optuna)) < n_trials:
                    trial = study.ask()
                    flying[trial.number] = trial
                    workers.start(trial)
                finished = workers.wait()
                if not finished:
                    return evaluations
                for trial, outcome in finished:
                    _settle(study, trial, outcome)
                    del flying[trial.number]
                    evaluations += 1
                    if progress is not None:
                        progress(spent(study.optuna)[0], n_trials)
        except BaseException as e:
            for trial in flying.values():
                study.retry(trial, f"interrupted: {_text(e)}", counted=False)
            recover(study.optuna, study.space, mine_but=others)  # also one that was interrupted while it was drawn
            raise


def _settle(study: Study, trial: Trial, outcome: Outcome) -> None:
    if isinstance(outcome, str):
        study.fail(trial, outcome)
    elif isinstance(outcome, futures.BrokenExecutor):
        study.retry(trial, "its worker process died", counted=True)
    elif isinstance(outcome, BaseException):
        study.fail(trial, _text(outcome))
        raise outcome
    else:
        study.tell(trial, outcome)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _workers(evaluate: Evaluate, n_jobs: int) -> Iterator[_Here | _Processes]:
    if n_jobs == 1:
        yield _Here(evaluate)
        return
    workers = _Processes(evaluate, n_jobs)
    try:
        yield workers
    except BaseException:
        workers.kill()  # what runs there is not wanted any more: its trials are enqueued again
        raise
    finally:
        workers.close()


class _Here:
    """Evaluates in this process, one at a time."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._next: Trial | None = None

    def idle(self) -> bool:
        return self._next is None

    def start(self, trial: Trial) -> None:
        self._next = trial

    def wait(self) -> list[tuple[Trial, Outcome]]:
        trial, self._next = self._next, None
        if trial is None:
            return []
        try:
            return [(trial, self._evaluate(trial))]
        except NetfitError as e:
            return [(trial, _text(e))]
        except Exception as e:
            return [(trial, e)]


class _Processes:
    """Evaluates in spawned processes; a dead one is replaced."""

    def __init__(self, evaluate: Evaluate, n_jobs: int) -> None:
        try:
            ForkingPickler.dumps(evaluate)
        except Exception as e:  # whatever the objects it holds may raise
            raise ConfigError(
                f"evaluate cannot be sent to worker processes ({_text(e)}); define it at module level, or n_jobs=1"
            ) from None
        self._evaluate = evaluate
        self._free = [self._spawn() for _ in range(n_jobs)]
        self._busy: dict[futures.Future[Any], tuple[Trial, futures.ProcessPoolExecutor]] = {}
        self._pids = {}
        try:
            # Also shows at once whether workers can start at all.
            for pool, pid in [(p, p.submit(os.getpid)) for p in self._free]:
                self._pids[pool] = pid.result()
        except futures.BrokenExecutor:
            raise ConfigError(
                "worker processes end at their start: evaluate must be importable, and a script that "
                "calls run(n_jobs=...) needs `if __name__ == '__main__':`"
            ) from None

    def idle(self) -> bool:
        return bool(self._free)

    def start(self, trial: Trial) -> None:
        pool = self._free.pop()
        self._busy[pool.submit(_evaluate_there, trial)] = trial, pool

    def wait(self) -> list[tuple[Trial, Outcome]]:
        done, _ = futures.wait(self._busy, return_when=futures.FIRST_COMPLETED)
        return [self._collect(future) for future in done]

    def kill(self) -> None:
        for pid in self._pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for pool in self._pids:
            pool.shutdown()

    def _collect(self, future: futures.Future[Any]) -> tuple[Trial, Outcome]:
        trial, pool = self._busy.pop(future)
        error = future.exception()
        if isinstance(error, futures.BrokenExecutor):
            del self._pids[pool]
            pool.shutdown()
            pool = self._spawn()
            self._pids[pool] = pool.submit(os.getpid).result()
        self._free.append(pool)
        return trial, future.result() if error is None else error

    def _spawn(self) -> futures.ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return futures.ProcessPoolExecutor(1, context, initializer=_begin, initargs=(self._evaluate,))


_evaluate: Evaluate  # a worker's own copy, sent once instead of with every trial


def _begin(evaluate: Evaluate) -> None:
    global _evaluate
    _evaluate = evaluate
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interrupt means
    threading.Thread(target=_die_with_driver, daemon=True).start()


def _die_with_driver() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a killed driver closes nothing: without this its workers would wait for ever
        os._exit(1)


def _evaluate_there(trial: Trial) -> Evaluation | str:
    try:
        return _evaluate(trial)
    except NetfitError as e:
        return _text(e)
