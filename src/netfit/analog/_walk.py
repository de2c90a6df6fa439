"""Walking noise: which layer limits a network on noisy hardware, without and with training for it."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from netfit.errors import ConfigError

from ._levels import EVERYWHERE
from ._midpoint import Midpoint, combine_midpoints, mean_midpoint, midpoint
from ._noise import Gaussian
from ._trainer import Trainer
from ._units import Study, evaluated, retrained
from ._workers import Workers

__all__ = ["Walk", "WalkRow", "walk"]

Key = tuple[str, int]


class WalkRow(NamedTuple):
    """One point of one curve.

    Attributes:
        site: name of the site, ``"*"`` for all at once.
        call: which call of it.
        seed: number of the repetition.
        trained: whether the network was trained under this very noise.
        std: amplitude of the noise.
        accuracy: with noise, 0 to 1.
        weight: mean magnitude of the weights of the layer before the site; of trained networks only.
        gap: accuracy lost when the tensor there is binarized; of networks trained under multiplicative noise only.
    """

    site: str
    call: int
    seed: int
    trained: bool
    std: float
    accuracy: float
    weight: float | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Walk:
    """What a walk found.

    Attributes:
        noise: policy name of the noise.
        clean: accuracy without noise, by seed.
        chance: accuracy of guessing.
        rows: every point that was measured.
        power: mean square of the tensor at each site.
        weights: mean magnitude of the weights before each site in the clean network.
        repeats: what tailored repetition gains at the global midpoint, one entry a budget.
    """

    noise: str
    clean: tuple[float, ...]
    chance: float
    rows: tuple[WalkRow, ...]
    power: Mapping[Key, float]
    weights: Mapping[Key, float]
    repeats: tuple[Mapping[str, Any], ...] = ()

    @property
    def sites(self) -> list[Key]:
        """(name, call) of every site, in execution order."""
        return list(self.power)

    def curve(self, site: Key, seed: int, trained: bool = False) -> tuple[list[float], list[float]]:
        """Levels and accuracies of one curve, by rising level."""
        own = sorted(self._curves.get((site, trained), {}).get(seed, []))
        return [s for s, _ in own], [a for _, a in own]

    @cached_property
    def _curves(self) -> dict[tuple[Key, bool], dict[int, list[tuple[float, float]]]]:
        """(site, trained) -> seed -> points."""
        found: dict[tuple[Key, bool], dict[int, list[tuple[float, float]]]] = {}
        for r in self.rows:
            place = found.setdefault(((r.site, r.call), r.trained), {})
            place.setdefault(r.seed, []).append((r.std, r.accuracy))
        return found

    @cached_property
    def _midpoints(self) -> dict[tuple[Key, bool], Midpoint]:
        return {place: self._mean(*place, sorted(seeds)) for place, seeds in self._curves.items()}

    def _mean(self, site: Key, trained: bool, seeds: Sequence[int]) -> Midpoint:
        found = []
        for seed in seeds:
            clean = self.clean[seed if seed < len(self.clean) else 0]
            found.append(midpoint(*self.curve(site, seed, trained), clean=clean, chance=self.chance))
        return mean_midpoint(found)

    def midpoint(self, site: Key = EVERYWHERE, trained: bool = False) -> Midpoint | None:
        """Midpoint of a site (or of noise everywhere) over all seeds; None when it was not walked."""
        return self._midpoints.get((site, trained))

    def grown(self, site: Key) -> float | None:
        """How many times as large the weights before a site are after training at its trained midpoint."""
        goal, clean = self.midpoint(site, trained=True), self.weights.get(site)
        rows = [r for r in self.rows if r[:2] == site and r.weight is not None]
        if goal is None or not clean or not rows:
            return None
        nearest = min(rows, key=lambda r: abs(math.log(r.std / goal.std)))
        return (nearest.weight or 0.0) / clean

    def predicted(self) -> float | None:
        """Global midpoint that the midpoints of the sites predict; see `combine_midpoints`."""
        found = [m for site in self.sites if (m := self.midpoint(site)) is not None and not m.censored]
        return combine_midpoints([m.std for m in found]) if found else None

    def weakest(self) -> Key:
        """The site that bears least noise: it limits this network."""
        return min(self.sites, key=lambda site: m.std if (m := self.midpoint(site)) else float("inf"))

    def to_dict(self) -> dict[str, Any]:
        """The walk as plain values, with midpoints: what ``result.json`` of a run holds."""
        sites = []
        for site in self.sites:
            entry: dict[str, Any] = {"site": site[0], "call": site[1], "power": self.power[site]}
            entry["grown"] = self.grown(site)
            gaps = [r.gap for r in self.rows if r[:2] == site and r.gap is not None]
            entry["gap"] = min(gaps) if gaps else None
            for name, trained in (("midpoint", False), ("trained", True)):
                found = self.midpoint(site, trained)
                entry[name] = None if found is None else dataclasses.asdict(found)
            sites.append(entry)
        everywhere = self.midpoint()
        return {
            "noise": self.noise, "clean": list(self.clean), "chance": self.chance, "sites": sites,
            "rows": [row._asdict() for row in self.rows], "weakest": self.weakest()[0],
            "everywhere": None if everywhere is None else dataclasses.asdict(everywhere),
            "predicted": self.predicted(), "repeats": list(self.repeats),
        }  # fmt: skip


def walk(
    subject: nn.Module | Trainer,
    noise: Gaussian,
    data: tuple[Tensor, Tensor],
    *,
    at: str = "*",
    seeds: int = 3,
    retrain: bool = False,
    levels: Sequence[float] | None = None,
    largest: float = 1e6,
    budgets: Sequence[int] = (2, 3),
    folder: str | Path | None = None,
    n_jobs: int = 1,
    ray: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Walk:
    """Put noise at one site after the other and find the level each bears.

    Levels are found by bisection in log scale around the midpoint; noise at all sites at once is walked too. With a
    `Trainer`, every seed is a training of its own, and `retrain` also trains under the noise of every level. All
    measurements are kept in the folder and never made twice.

    "Walking Noise: On Layer-Specific Robustness of Neural Architectures against Noisy Computations", 2022.

    Args:
        subject: a trained network, or how to train one. Seeds of a network are draws of noise.
        noise: its kind; its strength is not used.
        data: inputs (n, ...) and labels (n,) to judge on.
        at: sites to visit, as a pattern.
        seeds: repetitions, for the confidence intervals.
        retrain: also find the midpoints of networks trained under the noise.
        levels: measure at these levels instead of searching.
        largest: level at which a search gives up; a midpoint beyond it is reported as censored.
        budgets: mean executions a site for which tailored repetition is compared with uniform.
        folder: where measurements and clean networks are kept; None keeps nothing.
        n_jobs: worker processes.
        ray: address of a Ray cluster that does the work instead: ``"auto"``, ``"ray://host:10001"``, or ``"local"``
            for one on this machine.
        progress: called with units of work done and known so far.

    Raises:
        ConfigError: no site matches, the network is not better than chance, `retrain` without a trainer, or no cluster
            answers.
        MissingExtraError: a cluster without Ray installed.
    """
    if seeds < 1 or n_jobs < 1:
        raise ConfigError(f"seeds and n_jobs must be at least 1, not {seeds} and {n_jobs}")
    if retrain and not isinstance(subject, Trainer):
        raise ConfigError("retrain needs a Trainer: a network alone does not say how to train it")
    fixed = None if levels is None else tuple(levels)
    place = None if folder is None else Path(folder)
    study = Study(subject, noise, data, at, seeds, fixed, largest, tuple(budgets), place)
    first = [(seed,) for seed in range(seeds if isinstance(subject, Trainer) else 1)]
    with Workers(study, n_jobs, progress, ray) as workers:
        begun = workers.run(evaluated, first)
        found = _first(study, begun)
        if not retrain:
            return found
        seeded = [(seed, site) for site in found.sites for seed in range(seeds)]
        units = [(seed, site, found.clean[seed], _start(found, site)) for seed, site in seeded]
        rows = [WalkRow(*row) for unit in workers.run(retrained, units) for row in unit["rows"]]
    return dataclasses.replace(found, rows=(*found.rows, *rows))


def _first(study: Study, begun: Sequence[Mapping[str, Any]]) -> Walk:
    """The walk of clean networks, from what was found for each seed."""
    rows = tuple(WalkRow(*row) for unit in begun for row in unit["rows"])
    power = {(s, c): p for s, c, p in begun[0]["power"]}
    weights = {(s, c): w for s, c, w in begun[0]["weights"]}
    clean = tuple(unit["clean"] for unit in begun)
    return Walk(study.noise.name, clean, study.chance, rows, power, weights, tuple(begun[0]["repeats"]))


def _start(found: Walk, site: Key) -> float:
    """First level of a trained walk: training moves the midpoint up."""
    known = found.midpoint(site)
    return 2 * known.std if known else 1.0
