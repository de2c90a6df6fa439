"""A network among noise that changes: how much of the possible accuracy it keeps, and for how long."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from netfit.errors import ConfigError

from ._levels import EVERYWHERE, Bench, Point
from ._noise import Gaussian
from .schedules import Schedule

__all__ = ["Environment", "Robustness", "environment", "robustness"]


@dataclass(frozen=True)
class Robustness:
    """Accuracy relative to a network made for each level: mean over the levels, and the worst of them."""

    mean: float
    worst: float


def robustness(accuracies: Sequence[float], oracle: Sequence[float]) -> Robustness:
    """How near a network comes, over a range of noise, to networks trained for each level of it.

    Args:
        accuracies: of the network at each noise level (L,).
        oracle: at each level, accuracy of the network trained at exactly that level (L,).

    Raises:
        ConfigError: the lists differ in length, are empty, or an oracle is 0.

    Example:
        >>> robustness([0.9, 0.4], [0.9, 0.8])
        Robustness(mean=0.75, worst=0.5)
    """
    if len(accuracies) != len(oracle) or not accuracies or min(oracle) <= 0:
        raise ConfigError(
            f"robustness needs as many accuracies as oracles above 0, not {list(accuracies)} and {list(oracle)}"
        )
    ratios = [a / o for a, o in zip(accuracies, oracle, strict=True)]
    return Robustness(sum(ratios) / len(ratios), min(ratios))


@dataclass(frozen=True)
class Environment:
    """What a network went through.

    Attributes:
        stds: noise at each step.
        accuracy: at each step.
        clean: accuracy without noise.
        threshold: accuracy below which the network has failed.
        time_to_failure: first step below it; None when it never failed.
    """

    stds: tuple[float, ...]
    accuracy: tuple[float, ...]
    clean: float
    threshold: float
    time_to_failure: int | None

    @property
    def robustness(self) -> Robustness:
        """Accuracy relative to that without noise."""
        return robustness(self.accuracy, [self.clean] * len(self.accuracy))


def environment(
    model: nn.Module, noise: Gaussian, data: tuple[Tensor, Tensor], schedule: Schedule, steps: int, *,
    threshold: float | None = None, at: str = "*", seed: int = 0,
) -> Environment:  # fmt: skip
    """Judge a network at every step of a course of noise at all its sites.

    Args:
        model: without noise of its own.
        noise: its kind; the schedule gives the strength.
        data: inputs and labels; all of them are used at every step.
        schedule: such as `schedules.OrnsteinUhlenbeck` or a measured `schedules.Trace`.
        steps: how long to look.
        threshold: accuracy that counts as failure; half way between clean and chance when None.
        at: sites, as a pattern.
        seed: of the draws.

    Raises:
        ConfigError: steps is not positive, or the schedule gives one value a sample.
    """
    if steps < 1:
        raise ConfigError(f"an environment needs at least one step, not {steps}")
    stds = [schedule(step, 1) for step in range(steps)]
    if any(isinstance(std, Tensor) for std in stds):
        raise ConfigError(f"{type(schedule).__name__} gives one value a sample: an environment needs one a step")
    bench = Bench.of(model, noise, data, at)
    bench.reuse = False
    points = [Point(EVERYWHERE, float(std), seed + step) for step, std in enumerate(stds)]
    clean, *found = bench.measure([Point(EVERYWHERE, 0.0, seed), *points])
    limit = (clean + 1 / (int(data[1].max()) + 1)) / 2 if threshold is None else threshold
    failed = next((step for step, accuracy in enumerate(found) if accuracy < limit), None)
    return Environment(tuple(float(s) for s in stds), tuple(found), clean, limit, failed)
