"""Tables of channels over time: pandas, polars and arrays come in, one plain form is worked on."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

__all__ = ["Frame", "TimeOrderError", "as_frame", "check_columns"]

_TIMES = ("time", "timestamp", "ts", "date", "datetime")


class TimeOrderError(ConfigError):
    """The times of the rows do not increase."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Rows of named channels.

    Args:
        times: of the rows, seconds (or any number that increases), float64 (n,).
        columns: names of the channels.
        values: float64 (n, channels), NaN where a channel is absent.

    Raises:
        ConfigError: the shapes do not fit each other, or a name is there twice.
        TimeOrderError: the times do not increase.

    Example:
        >>> Frame(np.arange(2.0), ["a", "b"], np.zeros((2, 2))).values.shape
        (2, 2)
    """

    times: NDArray[np.float64]
    columns: Sequence[str]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.times), len(self.columns)):
            raise ConfigError(
                f"values of {self.values.shape} do not fit {len(self.times)} times and {len(self.columns)} columns"
            )
        check_times(self.times)
        check_columns(self.columns)

    def __len__(self) -> int:
        return len(self.times)

    def rows(self, part: slice) -> "Frame":
        """Some of the rows."""
        return unchecked(self.times[part], self.columns, self.values[part])


def unchecked(times: NDArray[np.float64], columns: Sequence[str], values: NDArray[np.float64]) -> Frame:
    """A frame whose parts are known to fit: looking 100,000 names through again would cost more than a row."""
    frame = object.__new__(Frame)
    for name, value in (("times", times), ("columns", columns), ("values", values)):
        object.__setattr__(frame, name, value)
    return frame


def as_frame(X: Any, start: float = 0.0) -> Frame:
    """Read what a caller has; the names of the columns are not looked at yet.

    Args:
        X: `Frame`, pandas frame (its index is time), polars frame (a column ``time`` or ``timestamp`` is time), or an
            array (n, channels), whose rows follow each other.
        start: time of the first row of an array.

    Raises:
        ConfigError: a column holds no numbers, or this is no table.
        TimeOrderError: the times do not increase.
    """
    if isinstance(X, Frame):
        return X
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(X, pandas.DataFrame):
        frame = unchecked(_seconds(X.index), X.columns, _pandas_values(X))
    elif polars is not None and isinstance(X, polars.DataFrame):
        frame = _from_polars(X, start)
    else:
        values = np.atleast_2d(_numbers("X", X))
        columns = tuple(f"c{i}" for i in range(values.shape[1]))
        frame = unchecked(start + np.arange(len(values), dtype=np.float64), columns, values)
    check_times(frame.times)
    return frame


def check_times(times: NDArray[np.float64]) -> None:
    """Raise a TimeOrderError that names the first row that does not come after the one before."""
    if len(times) == 1 and np.isfinite(times[0]):
        return
    bad = ~np.isfinite(times)
    bad[1:] |= ~(np.diff(times) > 0)
    if bad.any():
        row = int(bad.argmax())
        before = f", the row before is at {times[row - 1]:.15g}" if row else ""
        raise TimeOrderError(
            f"row {row} is at time {times[row]:.15g}{before}: sort the rows, and keep one for each time"
        )


def check_columns(columns: Sequence[str]) -> None:
    """Raise a ConfigError that names a column that is there twice."""
    if len(set(columns)) != len(columns):
        seen: set[str] = set()
        twice = next(c for c in columns if c in seen or seen.add(c))  # type: ignore[func-returns-value]
        raise ConfigError(f"column {twice!r} is there twice: channels need names of their own")


def _seconds(index: Any) -> NDArray[np.float64]:
    values = np.asarray(index)
    if values.dtype.kind == "M":
        return values.astype("datetime64[ns]").astype(np.int64) / 1e9
    if values.dtype.kind not in "iuf":
        raise ConfigError(f"an index of {values.dtype} is no time: set one of numbers or dates")
    return values.astype(np.float64)


def _pandas_values(X: Any) -> NDArray[np.float64]:
    try:
        values = X.to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        values = None
    if values is None or X.to_numpy().dtype == object:
        for name, dtype in X.dtypes.items():
            if dtype.kind not in "iufb":
                raise ConfigError(f"column {name!r} holds {dtype}, not numbers: convert or drop it")
        raise ConfigError("the table holds values that are not numbers: convert or drop them")
    return np.ascontiguousarray(values)


def _from_polars(X: Any, start: float) -> Frame:
    times = next((c for c in X.columns if c.lower() in _TIMES), None)
    for name in X.columns:
        if name != times and not X[name].dtype.is_numeric():
            raise ConfigError(f"column {name!r} holds {X[name].dtype}, not numbers: convert or drop it")
    values = X.drop(times) if times else X
    seconds = _seconds(X[times].to_numpy()) if times else start + np.arange(len(X), dtype=np.float64)
    return unchecked(seconds, tuple(values.columns), np.ascontiguousarray(values.to_numpy(), np.float64))


def _numbers(name: str, X: Any) -> NDArray[np.float64]:
    try:
        values = np.ascontiguousarray(X, np.float64)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{name} holds {type(X).__name__} that is no table of numbers: {e}") from e
    if values.ndim not in (1, 2):
        raise ConfigError(f"{name} has {values.ndim} axes: give rows of channels")
    return values
