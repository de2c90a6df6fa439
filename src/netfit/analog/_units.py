"""The pieces of work of a walk, each of which a process can do alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

__all__ = ["Study", "evaluated", "retrained"]

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
