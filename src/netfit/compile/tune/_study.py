"""A tuner, a runner and a file of records: a search that a kill only pauses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from netfit._version import __version__
from netfit.errors import ConfigError, JobError

from .._space import Config
from ._records import Outcome, Record, Records
from ._tuners import ModelTuner, Tuner

__all__ = ["Runner", "Study"]


class Runner(Protocol):
    """Something that tries configurations."""

    target: str
    """What is measured on, with everything a time depends on."""

    def run(self, configs: Sequence[Config]) -> Mapping[Config, Outcome]:
        """Outcome of every configuration."""


@dataclass(frozen=True)
class Point:
    """State of a search after one attempt: how many so far, and the least seconds."""

    attempts: int
    config: Config
    outcome: Outcome
    best: float | None


class Study:
    """A search over a space, recorded attempt by attempt.

    A study that starts on a file with records asks its tuner the same questions again and answers them from the
    file: nothing is measured twice, and the search goes on as if it had never stopped.

    Args:
        records: file of records.
        tuner: who chooses.
        runner: who measures.
    """

    def __init__(self, records: str | Path, tuner: Tuner, runner: Runner) -> None:
        self.records, self.tuner, self.runner = Records(records), tuner, runner
        self._known = self.records.of(tuner.space.name, runner.target)
        self.history: list[Point] = []
        self.measured = 0

    def run(
        self,
        max_attempts: int,
        stop: Callable[[Point], bool] | None = None,
        progress: Callable[[Point], None] | None = None,
    ) -> Point:
        """Search until the budget is spent, the tuner expects nothing more, or nothing is left.

        Args:
            max_attempts: those of earlier runs count.
            stop: asked after every attempt.
            progress: called after every attempt.

        Returns:
            The attempt that was fastest.

        Raises:
            ConfigError: a budget below 1.
            JobError: nothing ran; the message counts why.
        """
        if max_attempts < 1:
            raise ConfigError(f"max_attempts = {max_attempts} must be at least 1")
        done = False
        while not done and len(self.history) < max_attempts:
            batch = self.tuner.ask()[: max_attempts - len(self.history)]
            if not batch or (isinstance(self.tuner, ModelTuner) and self.tuner.idle >= 2 and stop is None):
                break
            outcomes = self._outcomes(batch)
            self.tuner.tell(outcomes)
            for config in batch:
                point = self._note(config, outcomes[config])
                if progress is not None:
                    progress(point)
                done = done or (stop is not None and stop(point))
        return self.best()

    def best(self) -> Point:
        """The fastest attempt.

        Raises:
            JobError: none ran.
        """
        timed = [(p.outcome.seconds, i) for i, p in enumerate(self.history) if p.outcome.seconds is not None]
        if not timed:
            counts: dict[str, int] = {}
            for point in self.history:
                counts[point.outcome.status] = counts.get(point.outcome.status, 0) + 1
            raise JobError(f"no configuration of {self.tuner.space.name} ran: {counts or 'none was tried'}")
        return self.history[min(timed)[1]]

    def _outcomes(self, batch: list[Config]) -> dict[Config, Outcome]:
        fresh = []
        for config in batch:
            if config not in self._known:
                rule = self.tuner.space.why(config)
                if rule is None:
                    fresh.append(config)
                else:
                    self._keep({config: Outcome(f"invalid_static:{rule}")})
        if fresh:
            self._keep(dict(self.runner.run(fresh)))
            self.measured += len(fresh)
        return {config: self._known[config] for config in batch}

    def _keep(self, outcomes: dict[Config, Outcome]) -> None:
        space, now = self.tuner.space.name, time.time()
        self.records.append(
            Record(space, self.runner.target, c, o, self.tuner.name, self.tuner.seed, now, __version__)
            for c, o in outcomes.items()
        )
        self._known |= outcomes

    def _note(self, config: Config, outcome: Outcome) -> Point:
        before = self.history[-1].best if self.history else None
        times = [t for t in (before, outcome.seconds) if t is not None]
        self.history.append(Point(len(self.history) + 1, config, outcome, min(times) if times else None))
        return self.history[-1]
