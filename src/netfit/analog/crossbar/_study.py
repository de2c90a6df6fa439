"""How long a network keeps its accuracy on resistive memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.seeding import derive
from netfit.surgery import calibrate
from netfit.train import evaluate

from ._crossbar import Crossbar
from ._programmed import Programmed, program

__all__ = ["ChipStudy", "over_time"]


@dataclass(frozen=True)
class ChipStudy:
    """Accuracies, 0 to 1, of one trained network on several chips.

    Attributes:
        digital: without crossbars.
        times: seconds after programming.
        plain: accuracy of each chip at each time, (chips, times).
        compensated: the same with drift compensated, (chips, times).
        errors: root mean square error of each layer's weights on the first chip, over the largest weight, (times,).
    """

    digital: float
    times: tuple[float, ...]
    plain: tuple[tuple[float, ...], ...]
    compensated: tuple[tuple[float, ...], ...]
    errors: dict[str, tuple[float, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a result file."""
        names = ("digital", "times", "plain", "compensated", "errors")
        return {name: getattr(self, name) for name in names}


def over_time(
    model: nn.Module,
    crossbar: Crossbar,
    calibration: Tensor,
    judged: tuple[Tensor, Tensor],
    times: Sequence[float] = (0.0, 3600.0, 86_400.0),
    chips: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> ChipStudy:
    """Program a trained network onto several chips and score it as they age.

    Args:
        model: stays as it is; all its linear layers and 2-d convolutions go to crossbars.
        crossbar: what they are made of; its seed is that of the first chip.
        calibration: inputs that set the converters, and the probe of the compensation.
        judged: inputs and labels.
        times: seconds after programming.
        chips: how many.
        progress: called with (scores done, scores in all).

    Raises:
        ConfigError: the model has no such layer, there is no time, or the device does not know one.
    """
    if not times or chips < 1:
        raise ConfigError(f"{len(times)} times and {chips} chips leave nothing to score: give at least one of each")
    for t_s in times:
        replace(crossbar, t_s=t_s)  # refuses a time before hours of work
    plain, compensated = [], []
    errors: dict[str, tuple[float, ...]] = {}
    for c in range(chips):
        seed = crossbar.seed if c == 0 else derive(crossbar.seed, "chip", c)
        chip = program(model, replace(crossbar, seed=seed), calibration[:2])
        calibrate(chip.model, calibration.split(256))
        rows = []
        for i, t_s in enumerate(times):
            rows.append(_scores(chip.at(t_s), calibration, judged, seed))
            if c == 0:
                for name, error in _errors(chip).items():
                    errors[name] = (*errors.get(name, ()), error)
            if progress:
                progress(c * len(times) + i + 1, chips * len(times))
        plain.append(tuple(a for a, _ in rows))
        compensated.append(tuple(b for _, b in rows))
    return ChipStudy(evaluate(model, *judged), tuple(map(float, times)), tuple(plain), tuple(compensated), errors)


def _scores(chip: Programmed, probe: Tensor, judged: tuple[Tensor, Tensor], seed: int) -> tuple[float, float]:
    """Without and with compensation, under the same read noise."""
    found = []
    for compensate in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "read noise"))
            if compensate:
                chip.compensate(probe[:256])
            found.append(evaluate(chip.model, *judged))
    return found[0], found[1]


def _errors(chip: Programmed) -> dict[str, float]:
    return {name: float((now - w).square().mean().sqrt() / w.abs().amax()) for name, w, now in chip.weights()}
