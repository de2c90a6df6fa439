"""Accuracy of one network at many noise levels: evaluated in waves, each measurement made and kept once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from netfit.search import Memo
from netfit.seeding import derive

from ._bisect import Bisection
from ._identity import tensors_digest
from ._injection import Injection
from ._noise import Gaussian
from ._prefix import PrefixCache

__all__ = ["EVERYWHERE", "Bench", "Point", "bisect_all"]

Key = tuple[str, int]
EVERYWHERE: Key = ("*", 0)  # all sites at once


class Point(NamedTuple):
    """One measurement that is wanted: this amplitude at this site, with these draws."""

    site: Key
    std: float
    seed: int


@dataclass
class Bench:
    """A network on the test bench: noise at any of its sites, accuracy on fixed samples.

    Args:
        injection: noise at all sites, standard deviations 0.
        x: inputs.
        y: labels.
        memo: where measurements are kept; None keeps none.
        batch_size: samples a forward pass.
        reuse: compute what comes before the noisy site once for all points.
    """

    injection: Injection
    x: Tensor
    y: Tensor
    memo: Memo | None = None
    batch_size: int = 256
    reuse: bool = True
    _digest: str = field(init=False, default="")

    @classmethod
    def of(
        cls, model: nn.Module, noise: Gaussian, data: tuple[Tensor, Tensor], at: str = "*", memo: Memo | None = None
    ) -> "Bench":
        """Put a copy of a model on the bench."""
        injection = Injection.everywhere(model, noise, data[0][:2], at=at)
        injection.set_std(0.0)
        injection.model.eval()
        return cls(injection, *data, memo)

    def __post_init__(self) -> None:
        self._digest = tensors_digest([*self.injection.model.state_dict().values(), self.x, self.y])

    def clean(self) -> float:
        """Accuracy without noise."""
        return self.measure([Point(self.injection.sites[0], 0.0, 0)])[0]

    def measure(self, points: Sequence[Point]) -> list[float]:
        """Accuracy at each point; what the memo knows is not measured again."""
        noise = {"noise": self.injection.description, "network": self._digest}
        keys = [noise | {"site": p.site, "std": p.std, "seed": p.seed} for p in points]
        known = [None if self.memo is None else self.memo.get(key) for key in keys]
        missing = [i for i, value in enumerate(known) if value is None]
        for i, value in zip(missing, self._accuracies([points[i] for i in missing]), strict=True):
            known[i] = value
            if self.memo is not None:
                self.memo.put(keys[i], value)
        return [float(value) for value in known]  # type: ignore[arg-type]

    def _accuracies(self, points: Sequence[Point]) -> list[float]:
        right = [0] * len(points)
        if points:
            pairs = zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True)
            for number, (x, y) in enumerate(pairs):
                cache = PrefixCache(self.injection.model, x) if self.reuse else None
                for i, point in enumerate(points):
                    out = self._outputs(point, number, x, cache)
                    right[i] += int((out.argmax(1) == y).sum())
        return [n / len(self.x) for n in right]

    @torch.no_grad()
    def _outputs(self, point: Point, batch: int, x: Tensor, cache: PrefixCache | None) -> Tensor:
        everywhere = point.site == EVERYWHERE
        self.injection.draw_from("exact", derive(point.seed, "batch", batch), point.site if not everywhere else "*")
        if everywhere:
            self.injection.set_std(point.std)
            try:
                return self.injection.model(x)
            finally:
                self.injection.set_std(0.0)
        if point.std == 0 and cache is not None:
            return cache.clean
        with self.injection.only(point.site, point.std):
            return self.injection.model(x) if cache is None else cache.outputs(point.site)


def bisect_all(
    bench: Bench,
    starts: Mapping[Key, float],
    seeds: Sequence[int],
    *,
    half: float,
    largest: float,
    levels: Sequence[float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[tuple[Key, int], list[tuple[float, float]]]:
    """Accuracy curve of every site and seed, as (level, accuracy) in the order they were measured.

    Args:
        bench: the network.
        starts: first level of each site.
        seeds: of the draws.
        half: accuracy whose crossing is searched.
        largest: level at which the search gives up.
        levels: measure these instead of searching.
        progress: called with the number of measurements after each wave.
    """
    searches = {(site, seed): Bisection(start, half, largest) for site, start in starts.items() for seed in seeds}
    if levels is not None:
        points = [Point(site, level, seed) for site, seed in searches for level in levels]
        for point, accuracy in zip(points, bench.measure(points), strict=True):
            searches[point.site, point.seed].tell(point.std, accuracy)
        return {key: search.told for key, search in searches.items()}
    done = 0
    while wave := [Point(key[0], level, key[1]) for key, s in searches.items() if (level := s.next()) is not None]:
        for point, accuracy in zip(wave, bench.measure(wave), strict=True):
            searches[point.site, point.seed].tell(point.std, accuracy)
        done += len(wave)
        if progress:
            progress(done)
    return {key: search.told for key, search in searches.items()}
