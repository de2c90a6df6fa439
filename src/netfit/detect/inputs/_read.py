"""Tables from files and streams, block by block."""

import csv
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from netfit.detect._frame import Frame, check_columns, check_times, unchecked
from netfit.errors import ConfigError, DataNotFound, require

__all__ = ["Format", "read_frames", "read_whole"]

Format = Literal["auto", "wide", "long"]
TIMES = ("time", "timestamp", "ts", "date", "datetime")
_NAMES = ("channel", "name", "metric", "series")
_MISSING = ("", "nan", "na", "null", "none")
_WAIT_S = 0.2
_Row = tuple[float, dict[str, float]]


def read_frames(
    path: str | Path, *, form: Format = "auto", follow: bool = False, block: int = 512, idle_s: float | None = None
) -> Iterator[Frame]:
    """Read a table in blocks of rows.

    A wide table has a column ``time`` (or ``timestamp``, ...) of seconds or ISO dates and one column a channel. A long
    one has the columns time, channel and value, and rows of one time follow each other.

    Args:
        path: CSV or Parquet file, or ``"-"`` for CSV on standard input.
        form: ``"auto"`` looks at the header.
        follow: wait for rows that are still to be written, for ever; CSV only.
        block: most rows of a frame.
        idle_s: with `follow`, stop after this many seconds without a new row.

    Raises:
        DataNotFound: there is no such file.
        ConfigError: the header or a field cannot be used; the message names the line.
        TimeOrderError: the times do not increase.
        MissingExtraError: Parquet without pyarrow.
    """
    if str(path).endswith((".parquet", ".pq")):
        if follow:
            raise ConfigError(f"{path} is Parquet, which is written as a whole: follow a CSV file instead")
        yield from _parquet(Path(path), form, block)
        return
    if str(path) == "-":
        yield from _blocks(str(path), _lines(sys.stdin, follow, idle_s), form, block)
        return
    try:
        file = Path(path).open(newline="", encoding="utf-8-sig")  # noqa: SIM115  closed below
    except OSError as e:
        raise DataNotFound(f"{path} cannot be read: {e.strerror}") from e
    with file:
        yield from _blocks(str(path), _lines(file, follow, idle_s), form, block)


def read_whole(path: str | Path, form: Format = "auto") -> Frame:
    """Read a table at once; channels that come later have NaN before.

    Args:
        path: as in `read_frames`.
        form: as in `read_frames`.
    """
    frames = list(read_frames(path, form=form))
    if not frames:
        raise ConfigError(f"{path} holds no rows below its header")
    columns = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    place = {name: i for i, name in enumerate(columns)}
    values = np.full((sum(map(len, frames)), len(columns)), np.nan)
    at = 0
    for frame in frames:
        values[at : at + len(frame), [place[name] for name in frame.columns]] = frame.values
        at += len(frame)
    return Frame(np.concatenate([frame.times for frame in frames]), tuple(columns), values)


def seconds(text: str, where: str) -> float:
    """A time as seconds: a number, or an ISO date (UTC where it names no zone).

    >>> seconds("12.5", ""), seconds("1970-01-02", ""), seconds("1970-01-01T01:00:00+01:00", "")
    (12.5, 86400.0, 0.0)
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as e:
        raise ConfigError(f"{where}: time {text[:40]!r} is neither a number of seconds nor an ISO date") from e
    if moment.tzinfo is None:
        return (moment - datetime(1970, 1, 1)).total_seconds()
    return moment.timestamp()


def _lines(file: TextIO, follow: bool, idle_s: float | None) -> Iterator[str | None]:
    """Complete lines; None whenever there is none at the moment."""
    rest, quiet = "", 0.0
    while True:
        part = file.readline()
        if part.endswith("\n"):
            yield rest + part
            rest, quiet = "", 0.0
        elif not follow:
            if part or rest:
                yield rest + part
            if not part:
                return
            rest = ""
        else:
            rest += part
            yield None
            if idle_s is not None and quiet >= idle_s:
                return
            time.sleep(_WAIT_S)
            quiet += _WAIT_S


def _blocks(name: str, lines: Iterator[str | None], form: Format, block: int) -> Iterator[Frame]:
    header = next((line for line in lines if line is not None and line.strip()), None)
    if header is None:
        raise ConfigError(f"{name} is empty: expected a header with a column time")
    names = next(csv.reader([header]))
    clock = _place(name, names, TIMES, "time")
    if form == "long" or (form == "auto" and len(names) == 3 and "value" in [n.lower() for n in names]):
        channel, value = _place(name, names, _NAMES, "channel"), _place(name, names, ("value",), "value")
        yield from _long(name, lines, (clock, channel, value), block)
    else:
        yield from _wide(name, lines, names, clock, block)


def _place(path: str, names: Sequence[str], known: Sequence[str], what: str) -> int:
    found = [i for i, n in enumerate(names) if n.strip().lower() in known]
    if not found:
        shown = ", ".join(names[:6])
        raise ConfigError(f"{path} has no column {what!r} (or {', '.join(known[1:]) or 'none else'}): it has {shown}")
    return found[0]


def _fields(name: str, lines: Iterator[str | None], count: int) -> Iterator[tuple[str, list[str]] | None]:
    """(where, fields) of each line with text; None when there is no more at the moment."""
    number = 1
    for line in lines:
        if line is None:
            yield None
            continue
        number += 1
        if not line.strip():
            continue
        fields = line.rstrip("\r\n").split(",") if '"' not in line else next(csv.reader([line]))
        if len(fields) != count:
            raise ConfigError(f"{name} line {number} has {len(fields)} fields, the header has {count}")
        yield f"{name} line {number}", fields


def _wide(name: str, lines: Iterator[str | None], names: list[str], clock: int, block: int) -> Iterator[Frame]:
    columns = tuple(n for i, n in enumerate(names) if i != clock)
    check_columns(columns)
    times: list[float] = []
    rows: list[NDArray[np.float64]] = []
    for item in _fields(name, lines, len(names)):
        if item is not None:
            where, fields = item
            times.append(seconds(fields.pop(clock), where))
            rows.append(_numbers(where, fields, columns))
        if rows and (item is None or len(rows) == block):
            yield _frame(times, columns, np.stack(rows))
            times, rows = [], []
    if rows:
        yield _frame(times, columns, np.stack(rows))


def _numbers(where: str, fields: list[str], columns: Sequence[str]) -> NDArray[np.float64]:
    try:
        return np.array(fields, np.float64)
    except ValueError:
        return np.array([_number(f, where, c) for f, c in zip(fields, columns, strict=True)])


def _number(text: str, where: str, column: str) -> float:
    if text.strip().lower() in _MISSING:
        return np.nan
    try:
        return float(text)
    except ValueError as e:
        raise ConfigError(f"{where}: {text[:40]!r} in column {column!r} is no number") from e


def _long(name: str, lines: Iterator[str | None], at: tuple[int, int, int], block: int) -> Iterator[Frame]:
    """Rows of one time make one row; the last one is complete when another time begins, or the text ends."""
    rows: list[_Row] = []
    for item in _fields(name, lines, 3):
        if item is not None:
            where, fields = item
            moment, channel = seconds(fields[at[0]], where), fields[at[1]]
            if not rows or rows[-1][0] != moment:
                if len(rows) > block:
                    yield _joined(rows[:-1])
                    rows = rows[-1:]
                rows.append((moment, {}))
            if channel in rows[-1][1]:
                raise ConfigError(f"{where}: {channel!r} is there twice at time {moment:.15g}")
            rows[-1][1][channel] = _number(fields[at[2]], where, "value")
        elif len(rows) > 1:
            yield _joined(rows[:-1])
            rows = rows[-1:]
    if rows:
        yield _joined(rows)


def _joined(rows: list[_Row]) -> Frame:
    columns = tuple(sorted({name for _, row in rows for name in row}))
    values = np.array([[row.get(name, np.nan) for name in columns] for _, row in rows])
    return _frame([t for t, _ in rows], columns, values.reshape(len(rows), -1))


def _frame(times: Iterable[float], columns: Sequence[str], values: NDArray[np.float64]) -> Frame:
    clock = np.array(list(times))
    check_times(clock)
    return unchecked(clock, columns, values)


def _parquet(path: Path, form: Format, block: int) -> Iterator[Frame]:
    pyarrow = require("pyarrow", "detect")
    parquet = require("pyarrow.parquet", "detect")
    try:
        file = parquet.ParquetFile(path)
    except OSError as e:
        raise DataNotFound(f"{path} cannot be read: {e}") from e
    except pyarrow.ArrowInvalid as e:
        raise ConfigError(f"{path} is no Parquet file: {e}") from e
    names = [n for n in file.schema_arrow.names if n != "__index_level_0__"] or list(file.schema_arrow.names)
    clock = names[_place(str(path), names, TIMES, "time")]
    if form == "long" or (form == "auto" and len(names) == 3 and "value" in names):
        channel = names[_place(str(path), names, _NAMES, "channel")]
        pieces = (batch.to_pydict() for batch in file.iter_batches(columns=[clock, channel, "value"]))
        text = (
            f"{_text(t)},{c},{v}\n" for p in pieces for t, c, v in zip(p[clock], p[channel], p["value"], strict=True)
        )
        yield from _long(str(path), iter(_quoted(text)), (0, 1, 2), block)
        return
    columns = tuple(n for n in names if n != clock)
    for batch in file.iter_batches(batch_size=block):
        yield _frame(_clock(batch.column(clock)), columns, _columns(str(path), batch, columns))


def _quoted(rows: Iterable[str]) -> Iterator[str | None]:
    """Names may hold commas: quote the middle field."""
    for row in rows:
        moment, _, rest = row.partition(",")
        channel, _, value = rest.rstrip("\n").rpartition(",")
        yield f'{moment},"{channel.replace(chr(34), chr(34) * 2)}",{value}\n'


def _text(moment: object) -> str:
    return moment.isoformat() if isinstance(moment, datetime) else str(moment)


def _clock(column: object) -> Iterator[float]:
    for moment in islice(column.to_pylist(), None):  # type: ignore[attr-defined]
        yield seconds(_text(moment), "time")


def _columns(path: str, batch: object, columns: Sequence[str]) -> NDArray[np.float64]:
    out = np.empty((batch.num_rows, len(columns)))  # type: ignore[attr-defined]
    for i, name in enumerate(columns):
        column = batch.column(name)  # type: ignore[attr-defined]
        try:
            out[:, i] = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
        except (TypeError, ValueError) as e:
            raise ConfigError(f"{path}: column {name!r} holds {column.type}, not numbers: convert or drop it") from e
    return out
