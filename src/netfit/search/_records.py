"""What goes into a study and what comes out of it, as plain frozen records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ._space import Params

__all__ = ["Evaluation", "Goal", "Row", "Trial"]


@dataclass(frozen=True)
class Goal:
    """What a search is after: one value, under constraints that hold when they are zero or less.

    Args:
        maximize: whether a larger value is better.
        constraints: names of the constraints that every evaluation reports, such as ``("latency",)``.

    Raises:
        ConfigError: a constraint is named twice.
    """

    maximize: bool = True
    constraints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "constraints", tuple(self.constraints))
        if len(set(self.constraints)) < len(self.constraints):
            raise ConfigError(f"a constraint is named twice in {self.constraints}")


@dataclass(frozen=True)
class Evaluation:
    """What one point turned out to be.

    Args:
        value: the score that the goal maximizes or minimizes.
        constraints: constraint name to distance from its bound, such as ``{"latency": ratio - 0.25}``; zero or less is
            feasible.
        attrs: anything else worth keeping, JSON-able.
    """

    value: float
    constraints: Mapping[str, float] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A point to be evaluated.

    Args:
        number: position in the study.
        params: dimension name to value.
        seed: for every random draw of the evaluation; a repetition of an interrupted trial gets the same one.
    """

    number: int
    params: Params
    seed: int


@dataclass(frozen=True)
class Row:
    """A trial as the store holds it.

    Args:
        number: position in the study.
        state: ``"complete"``, ``"fail"``, ``"running"``, ``"waiting"`` or ``"pruned"``.
        params: dimension name to value; incomplete for a trial that was cut short.
        seed: seed of its evaluation.
        value: its score; None unless complete.
        constraints: constraint name to distance from its bound.
        attrs: what the evaluation kept besides.
        error: why it failed, else None.
        note: what it was enqueued or added with, else None.
        fingerprint: digest of the fingerprint it was evaluated under; None unless complete.
    """

    number: int
    state: str
    params: Params
    seed: int
    value: float | None
    constraints: dict[str, float]
    attrs: dict[str, Any]
    error: str | None
    note: str | None
    fingerprint: str | None

    @property
    def feasible(self) -> bool:
        """Whether it is complete and every constraint is zero or less."""
        return self.state == "complete" and self.violation == 0

    @property
    def violation(self) -> float:
        """Sum of what the constraints exceed zero by: 0 for a feasible trial."""
        return sum(max(0.0, c) for c in self.constraints.values())
