"""What one choice may be, and how it is told to Optuna.

An ``IntChoice`` travels as the *position* in its tuple of values: allowed channel counts are seldom evenly spaced,
and a sampler that sees positions keeps their order and gives every value the same prior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

__all__ = [
    "Categorical",
    "Dimension",
    "Float",
    "IntChoice",
    "Params",
    "check_params",
    "check_space",
    "describe",
    "revive",
]

Value = str | int | float | bool | None
Params = dict[str, Any]


@dataclass(frozen=True)
class Categorical:
    """One of several values without an order, such as number formats.

    Args:
        values: text, numbers, booleans or None; at least one, no two alike.

    Raises:
        ConfigError: no values, a repeated value, or one of another type.

    >>> Categorical(("fp32", "int8")).values
    ('fp32', 'int8')
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        _check_values(self.values, str | int | float | bool | None, "text, numbers, booleans or None")

    def distribution(self) -> BaseDistribution:
        """The same choice as an Optuna distribution."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def suggest(self, trial: Trial, name: str) -> Any:
        """Draw the stored form of a value through an Optuna trial."""
        return trial.suggest_categorical(name, self.values)

    def encode(self, value: Any) -> Any:
        """The stored form of a value; ``ValueError`` when it is not one of the values."""
        return self.values[self.values.index(value)]

    def decode(self, stored: Any) -> Any:
        """The value of a stored form."""
        return stored


@dataclass(frozen=True)
class IntChoice:
    """One of several integers with an order, such as the useful channel counts of a layer.

    Args:
        values: strictly increasing integers, at least one.

    Raises:
        ConfigError: no values, one that is no integer, or a wrong order.

    >>> IntChoice((8, 16, 64)).encode(64)
    2
    """

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        _check_values(self.values, int, "integers")
        if list(self.values) != sorted(self.values):
            raise ConfigError(f"the values of an IntChoice must increase, not {self.values}")

    def distribution(self) -> BaseDistribution:
        """The same choice as an Optuna distribution over positions."""
        from optuna.distributions import IntDistribution

        return IntDistribution(0, len(self.values) - 1)

    def suggest(self, trial: Trial, name: str) -> int:
        """Draw the position of a value through an Optuna trial."""
        return trial.suggest_int(name, 0, len(self.values) - 1)

    def encode(self, value: Any) -> int:
        """The position of a value; ``ValueError`` when it is not one of the values."""
        return self.values.index(value)

    def decode(self, stored: Any) -> int:
        """The value at a position."""
        return self.values[int(stored)]


@dataclass(frozen=True)
class Float:
    """A real number between two bounds, both included.

    Args:
        lo: lower bound, finite.
        hi: upper bound, finite, not below ``lo``.

    Raises:
        ConfigError: the bounds are not finite or in the wrong order.
    """

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and self.lo <= self.hi):
            raise ConfigError(f"Float needs finite bounds lo <= hi, not {self.lo} and {self.hi}")

    def distribution(self) -> BaseDistribution:
        """The same range as an Optuna distribution."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.lo, self.hi)

    def suggest(self, trial: Trial, name: str) -> float:
        """Draw a value through an Optuna trial."""
        return trial.suggest_float(name, self.lo, self.hi)

    def encode(self, value: Any) -> float:
        """The stored form of a value; ``ValueError`` when it is out of range."""
        if not self.lo <= float(value) <= self.hi:
            raise ValueError(value)
        return float(value)

    def decode(self, stored: Any) -> float:
        """The value of a stored form."""
        return float(stored)


Dimension = Categorical | IntChoice | Float


def check_space(space: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """A copy of a search space, or a :class:`ConfigError` that names what is wrong with it."""
    if not space:
        raise ConfigError("the search space is empty: name at least one dimension")
    for name, dimension in space.items():
        if not isinstance(dimension, Categorical | IntChoice | Float):
            raise ConfigError(f"space[{name!r}] must be Categorical, IntChoice or Float, not {dimension!r}")
    return dict(space)


def check_params(space: Mapping[str, Dimension], params: Mapping[str, Any]) -> Params:
    """The stored form of one point of a space, or a :class:`ConfigError` that names what is wrong with it."""
    for name in params:
        if name not in space:
            raise ConfigError(f"the space has no dimension {name!r}; {did_you_mean(name, space)}")
    stored = {}
    for name, dimension in space.items():
        if name not in params:
            raise ConfigError(f"the point lacks a value for dimension {name!r}")
        try:
            stored[name] = dimension.encode(params[name])
        except (ValueError, TypeError):
            raise ConfigError(f"{name}={params[name]!r} is not in {dimension}") from None
    return stored


def describe(dimension: Dimension) -> list[Any]:
    """The JSON form of a dimension: its class, then its values or bounds."""
    if isinstance(dimension, Float):
        return ["Float", dimension.lo, dimension.hi]
    return [type(dimension).__name__, *dimension.values]


def revive(described: list[Any]) -> Dimension:
    """The dimension of a JSON form."""
    kind, *values = described
    if kind == "Float":
        return Float(*values)
    return IntChoice(tuple(values)) if kind == "IntChoice" else Categorical(tuple(values))


def _check_values(values: tuple[Any, ...], allowed: Any, words: str) -> None:
    if not values:
        raise ConfigError("a dimension needs at least one value")
    for value in values:
        # True would pass as an integer and 1.0 == 1 would hide a value: both are mistakes in a list of choices.
        if not isinstance(value, allowed) or (allowed is int and isinstance(value, bool)):
            raise ConfigError(f"the values of a dimension must be {words}, not {value!r}")
    if len(set(values)) < len(values):
        raise ConfigError(f"the values of a dimension must differ: {values}")
