"""Spaces whose answers are known: loop nests of the simulated VTA, and kernels that others measured on GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

import numpy as np

from netfit.data import TuningSpace
from netfit.env import digest
from netfit.errors import ConfigError
from netfit.targets.vta import Config as Core
from netfit.targets.vta import Conv, Knobs, Timing, all_knobs, estimate, features, lower, times, why_invalid

from .._space import Config, Space
from ._records import Outcome

__all__ = ["RecordedRunner", "VtaRunner", "recorded_space", "vta_space"]

_KNOBS = ("tile_h", "tile_w", "tile_ci", "tile_co", "oc_nthread", "h_nthread")


def vta_space(conv: Conv, core: Core | None = None, name: str = "") -> Space:
    """Loop nests of a convolution on a VTA, with its static rules, hardware features and traffic estimate.

    Args:
        conv: what is computed.
        core: the accelerator.
        name: of the space; made of the sizes when empty.
    """
    config = core or Core()
    grid = np.array([astuple(k) for k in all_knobs(conv)])
    values = {knob: sorted(set(grid[:, i].tolist())) for i, knob in enumerate(_KNOBS)}
    return Space(
        name or f"vta {config.name} conv {'x'.join(str(v) for v in astuple(conv))}",
        values,
        lambda c: why_invalid(conv, Knobs(*c), config),
        lambda many: features(conv, [Knobs(*c) for c in many], config),
        lambda many: estimate(conv, [Knobs(*c) for c in many], config),
    )


class VtaRunner:
    """Simulates loop nests; a nest that cannot be lowered is a compile error, as on the real stack.

    Args:
        conv: what is computed.
        core: the accelerator.
        timing: cycles of its instructions.
    """

    def __init__(self, conv: Conv, core: Core | None = None, timing: Timing | None = None) -> None:
        self.conv, self.core, self.timing = conv, core or Core(), timing or Timing()
        self.target = f"vta {self.core.name} {digest([astuple(self.core), astuple(self.timing)])[:12]}"

    def run(self, configs: Sequence[Config]) -> dict[Config, Outcome]:
        """Simulated seconds of every configuration."""
        return {config: self._one(config) for config in configs}

    def _one(self, config: Config) -> Outcome:
        try:
            program = lower(self.conv, Knobs(*config), self.core)
        except ConfigError as e:
            return Outcome("invalid_compile", detail=str(e).rpartition(": ")[2])
        seconds = times(program, self.timing).seconds
        return Outcome("ok", seconds, seconds, 0.0)


def recorded_space(given: TuningSpace, name: str = "") -> Space:
    """The space of a kernel that was measured in full; it has no rules, failures show when they are met.

    Args:
        given: from :func:`netfit.data.tuning_space`.
        name: of the space.
    """
    values = {knob: sorted(set(given.params[:, i].tolist())) for i, knob in enumerate(given.names)}
    return Space(name or f"recorded {given.device}", values, points=[tuple(p) for p in given.params.tolist()])


class RecordedRunner:
    """Answers from a measured space.

    Args:
        given: from :func:`netfit.data.tuning_space`.
    """

    def __init__(self, given: TuningSpace) -> None:
        self.target = f"recorded {given.device}"
        self._outcomes: dict[Config, Outcome] = {}
        for point, ms, status in zip(given.params.tolist(), given.time_ms, given.status, strict=True):
            ran = bool(np.isfinite(ms))
            text = "ok" if ran else "invalid_compile" if "Compilation" in str(status) else "crash"
            self._outcomes[tuple(point)] = Outcome(text, float(ms) / 1e3 if ran else None)

    @property
    def fastest(self) -> float:
        """Least seconds of the whole space."""
        return min(o.seconds for o in self._outcomes.values() if o.seconds is not None)

    def run(self, configs: Sequence[Config]) -> Mapping[Config, Outcome]:
        """What was measured."""
        return {config: self._outcomes[config] for config in configs}
