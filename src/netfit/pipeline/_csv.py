"""The ``compute_only`` tables of torch.distributed.pipelining: one line per rank, one cell per action.

A cell is ``<stage><action><microbatch>`` with F forward, I gradient of the input, W of the weights, B both;
``(0F3;7B0)OVERLAP_F_B`` runs a forward and a backward together; an empty cell is an idle slot of a drawing and is
dropped, because only the order matters. So are the collectives of data parallelism (``0REDUCE_GRAD``).
"""

from __future__ import annotations

import re
from pathlib import Path

from netfit.errors import ConfigError

from ._schedule import Op, Schedule, from_rows

__all__ = ["from_csv", "text_of", "to_csv"]

_TO_TORCH = {"F": "F", "B": "I", "W": "W", "X": "B"}
_FROM_TORCH = {there: here for here, there in _TO_TORCH.items()}
_CELL = re.compile(r"(\d{1,6})([A-Z_]+)(\d{0,9})")
_PAIR = re.compile(r"\(([^;()]+);([^;()]+)\)OVERLAP_F_B")
_COLLECTIVE = re.compile(r"\d+(REDUCE_GRAD|UNSHARD|RESHARD)")
_MAX_BYTES = 256 << 20


def to_csv(schedule: Schedule) -> str:
    """The whole table; lines end as the csv module ends them.

    Raises:
        ConfigError: torch runs one replica only.
    """
    if len(schedule.placement) > 1:
        raise ConfigError(
            f"{schedule.label} keeps {len(schedule.placement)} replicas of the network; torch runs only one"
        )
    return "".join(",".join(_cells(row)) + "\r\n" for row in schedule.rows)


def _cells(row: tuple[Op, ...]) -> list[str]:
    cells: list[str] = []
    names = [f"{op.stage}{_TO_TORCH[op.kind]}{op.microbatch}" for op in row]
    for i, op in enumerate(row):
        if op.paired:
            cells.append(f"({names[i]};{names[i + 1]})OVERLAP_F_B")
        elif i == 0 or not row[i - 1].paired:
            cells.append(names[i])
    return cells


def text_of(source: str | Path) -> str:
    """The content of a file, or the text itself.

    Raises:
        ConfigError: the file cannot be read or is too large.
    """
    if isinstance(source, str) and ("\n" in source or "," in source):
        return source
    path = Path(source)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_BYTES} bytes, no schedule table")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise ConfigError(f"cannot read the schedule table {path}: {reason}") from e


def from_csv(text: str, family: str) -> Schedule:
    """Parse and check a table.

    Raises:
        ConfigError: naming the line and cell at fault.
    """
    lines = text.splitlines()
    while lines and not lines[-1].strip(", "):
        lines.pop()
    rows = [_row(line, number) for number, line in enumerate(lines, 1)]
    microbatches = 1 + max((op.microbatch for row in rows for op in row), default=0)
    return from_rows(family, rows, microbatches)


def _row(line: str, number: int) -> list[Op]:
    row: list[Op] = []
    for column, cell in enumerate((c.strip().strip('"') for c in line.split(",")), 1):
        if not cell or _COLLECTIVE.fullmatch(cell):
            continue
        where = f"line {number}, cell {column}"
        if pair := _PAIR.fullmatch(cell):
            forward, backward = (_op(part.strip(), where) for part in pair.groups())
            row += [forward._replace(paired=True), backward]
        else:
            row.append(_op(cell, where))
    return row


def _op(cell: str, where: str) -> Op:
    match = _CELL.fullmatch(cell)
    if not match or match[2] not in _FROM_TORCH or not match[3]:
        raise ConfigError(
            f"{where}: unknown action {cell!r}; allowed are <stage>F|I|W|B<microbatch> and (0F1;1B0)OVERLAP_F_B"
        )
    return Op(_FROM_TORCH[match[2]], int(match[1]), int(match[3]))
