"""What a command hands back, and the few forms its numbers are printed in."""

import io
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netfit.errors import MissingExtraError, NetfitError

__all__ = ["Output", "answer", "si", "table", "write_page"]

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))


@dataclass(frozen=True)
class Output:
    """Text for standard output, and what went wrong when there is a result all the same."""

    text: str
    error: NetfitError | None = None


def answer(as_json: bool, data: Mapping[str, Any], text: str, error: NetfitError | None = None) -> Output:
    """The form that was asked for: JSON for programs, text for people."""
    if as_json:
        from netfit.env import jsonable  # asks for the versions of packages, which --help does not

        text = json.dumps(data, indent=2, default=jsonable, allow_nan=False, ensure_ascii=False)
    return Output(text, error)


def si(value: float, unit: str = "") -> str:
    """A number with four digits and a decimal prefix.

    >>> si(40_813_184, "MAC"), si(2.5e-05, "s"), si(0)
    ('40.81 MMAC', '25 us', '0')
    """
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s), (1.0, ""))
    return f"{value / scale:.4g} {prefix}{unit}".rstrip()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], totals: Sequence[str] = ()) -> str:
    """Aligned rows, the first two columns to the left; wraps on a terminal, never in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE, pad_edge=False, show_footer=bool(totals))
    for i, name in enumerate(columns):
        cells = [name, *(row[i] for row in rows)]
        left = i == 0 or not any(cell[:1].isdigit() for cell in cells)
        footer = totals[i] if totals else ""
        grid.add_column(name, footer=footer, justify="left" if left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    width = shutil.get_terminal_size().columns if sys.__stdout__ and sys.__stdout__.isatty() else 1000
    text = io.StringIO()
    Console(file=text, width=width, markup=False, highlight=False, emoji=False).print(grid)
    return textwrap.dedent("\n".join(line.rstrip() for line in text.getvalue().splitlines())).strip("\n")


def write_page(run: Path) -> None:
    """Write report.html of a finished run; a missing extra costs the page, never the run."""
    from netfit.report import from_run, write

    try:
        write(from_run(run), run / "report.html")
    except MissingExtraError as e:
        print(f"netfit: no report.html: {e}; then netfit report {run}", file=sys.stderr)
