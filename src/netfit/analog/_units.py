"""The pieces of work of a walk, each of which a process can do alone."""

import concurrent.futures as futures
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, JobError
from netfit.search import Memo
from netfit.surgery import Policy, plain
from netfit.train import evaluate

from ._bisect import Bisection
from ._identity import tensors_digest
from ._injection import Injection
from ._levels import EVERYWHERE, Bench, Point, bisect_all
from ._midpoint import Midpoint, mean_midpoint, midpoint, multi_execution
from ._noise import AdditiveGaussian, Gaussian, MultiplicativeGaussian
from ._trainer import Trainer
from .diagnostics import binarization_gap, signal_power, weight_before
from .schedules import Constant

__all__ = ["Study", "Workers", "evaluated", "retrained"]

Key = tuple[str, int]
CALIBRATION = 512  # samples that tell the signal's power


@dataclass(frozen=True)
class Study:
    """Everything a piece of work needs; sent to a worker process once. See `walk` for the fields."""

    subject: nn.Module | Trainer
    noise: Gaussian
    data: tuple[Tensor, Tensor]
    at: str
    seeds: int
    levels: tuple[float, ...] | None
    largest: float
    budgets: tuple[int, ...]
    folder: Path | None

    @property
    def chance(self) -> float:
        """Accuracy of guessing among the classes there are."""
        return 1 / (int(self.data[1].max()) + 1)

    @property
    def memo(self) -> Memo | None:
        """Where measurements are kept."""
        return None if self.folder is None else Memo(self.folder / "walk.db")


def evaluated(study: Study, seed: int) -> dict[str, Any]:
    """Curves of one network at every site and everywhere, its signals and weights."""
    if isinstance(study.subject, Trainer):
        place = None if study.folder is None else study.folder / f"clean-{seed}"
        model, draws = study.subject(seed=seed, checkpoint=place), [seed]
    else:
        model, draws = study.subject, list(range(study.seeds))
    bench = Bench.of(model, study.noise, study.data, study.at, study.memo)
    clean = bench.clean()
    if clean <= study.chance:
        raise ConfigError(f"no midpoint: the clean accuracy {clean:.4g} is not above chance, {study.chance:.4g}")
    x = study.data[0][:CALIBRATION]
    every = signal_power(model, x)
    power = {key: every[key] for key in bench.injection.sites}
    starts = _starts(study.noise, power)
    half = (clean + study.chance) / 2
    told = bisect_all(bench, starts, draws, half=half, largest=study.largest, levels=study.levels)
    weights = {key: weight_before(model, key, x[:2]) for key in power}
    return {
        "clean": clean,
        "rows": [(*site, draw, False, std, acc) for (site, draw), curve in told.items() for std, acc in curve],
        "power": [(*key, value) for key, value in power.items()],
        "weights": [(*key, w.abs().mean().item()) for key, w in weights.items() if w is not None],
        "repeats": _repeats(bench, study, told, clean),
    }


def _starts(noise: Gaussian, power: dict[Key, float]) -> dict[Key, float]:
    """Where each search begins: noise as strong as the signal."""
    absolute = isinstance(noise, AdditiveGaussian) and noise.relative_to is None
    starts = {key: p**0.5 if absolute and p > 0 else 1.0 for key, p in power.items()}
    return starts | {EVERYWHERE: min(starts.values()) / 2}


def _repeats(bench: Bench, study: Study, told: dict[Any, Any], clean: float) -> list[dict[str, Any]]:
    """Accuracy at the global midpoint when executions are shared out evenly, and when they go where noise hurts."""
    found = {
        site: mean_midpoint([_midpoint(c, clean, study.chance) for (s, _), c in told.items() if s == site])
        for site, _ in told
    }
    everywhere = found.pop(EVERYWHERE)
    if everywhere.censored or any(m.censored for m in found.values()):
        return []
    rows = []
    for budget in study.budgets:
        tailored = multi_execution([m.std for m in found.values()], budget * len(found))
        accuracy = {}
        for name, repeats in (("uniform", [budget] * len(found)), ("tailored", tailored)):
            bench.injection.set_repeats(dict(zip(found, repeats, strict=True)))
            points = [Point(EVERYWHERE, everywhere.std, seed) for seed in range(3)]
            accuracy[name] = sum(bench.measure(points)) / len(points)
        rows.append({"budget": budget, "std": everywhere.std, "repeats": tailored, **accuracy})
    bench.injection.set_repeats(dict.fromkeys(found, 1))
    return rows


def _midpoint(curve: Sequence[tuple[float, float]], clean: float, chance: float) -> Midpoint:
    return midpoint([s for s, _ in curve], [a for _, a in curve], clean=clean, chance=chance)


def retrained(study: Study, seed: int, site: Key, clean: float, start: float) -> dict[str, Any]:
    """Curve of networks that were each trained under the noise they are judged with."""
    trainer = study.subject
    assert isinstance(trainer, Trainer)
    memo = study.memo
    identity: dict[str, Any] = {"trainer": trainer.identity(), "noise": [study.noise.name, study.noise.settings()]}
    identity |= {"site": site, "seed": seed, "data": tensors_digest(study.data)}
    search = Bisection(start, (clean + study.chance) / 2, study.largest)
    levels = None if study.levels is None else list(study.levels)
    rows: list[tuple[Any, ...]] = []
    while (std := search.next() if levels is None else (levels.pop(0) if levels else None)) is not None:

        def measure(std: float = std) -> tuple[float, float | None, float | None]:
            return _trained_there(study, trainer, seed, site, std)

        accuracy, weight, gap = measure() if memo is None else memo.call(identity | {"std": std}, measure)
        search.tell(std, accuracy)
        rows.append((*site, seed, True, std, accuracy, weight, gap))
    return {"rows": rows}


def _trained_there(
    study: Study, trainer: Trainer, seed: int, site: Key, std: float
) -> tuple[float, float | None, float | None]:
    """Accuracy under the noise, mean magnitude of the weights before the site, and what binarization there costs."""
    try:
        model = trainer(Policy({site[0]: study.noise}), seed=seed, schedule=Constant(std))
    except JobError:  # diverged: this much noise cannot be trained with
        return study.chance, None, None
    injection = Injection(model)
    injection.set_std(std)
    injection.draw_from("exact", seed)
    weight = weight_before(plain(model), site, study.data[0][:2])
    accuracy = evaluate(model, *study.data)
    binary = isinstance(study.noise, MultiplicativeGaussian)
    gap = binarization_gap(model, site, study.data, std, seed) if binary else None
    return accuracy, None if weight is None else weight.abs().mean().item(), gap


Outcome = dict[str, Any]
Work = Callable[..., Outcome]


class Workers:
    """Does units of work here or in several processes, and says how many are done.

    Args:
        study: sent to every worker process once.
        n_jobs: processes; 1 works in this one.
        progress: called with units done and known so far.

    Raises:
        ConfigError: the study cannot be sent to worker processes.
    """

    def __init__(self, study: Study, n_jobs: int, progress: Callable[[int, int], None] | None) -> None:
        self.study, self.progress = study, progress
        self.done = self.total = 0
        self.pool: futures.ProcessPoolExecutor | None = None
        if n_jobs > 1:
            try:
                ForkingPickler.dumps(study)
            except Exception as e:  # whatever the objects it holds may raise
                raise ConfigError(
                    f"the walk cannot be sent to worker processes ({e}); build networks in a module, or use n_jobs=1"
                ) from None
            context = multiprocessing.get_context("spawn")
            self.pool = futures.ProcessPoolExecutor(n_jobs, context, initializer=_begin, initargs=(study,))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def run(self, work: Work, units: Sequence[tuple[Any, ...]]) -> list[Outcome]:
        """Results in the order of the units."""
        self.total += len(units)
        if self.pool is None:
            return [self._count(work(self.study, *unit)) for unit in units]
        pending = [self.pool.submit(_there, work, unit) for unit in units]
        for future in futures.as_completed(pending):
            self._count(future.result())
        return [future.result() for future in pending]

    def _count(self, outcome: Outcome) -> Outcome:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)
        return outcome


_study: Study  # a worker's own copy, sent once instead of with every unit


def _begin(study: Study) -> None:
    global _study
    _study = study
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interrupt means


def _there(work: Work, unit: tuple[Any, ...]) -> Outcome:
    return work(_study, *unit)
