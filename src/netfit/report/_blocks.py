"""Blocks that several pages build in the same way."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from netfit.errors import MissingExtraError

from ._format import MISSING, yes_no
from ._model import Block, Figure, Note, Table

__all__ = ["cell", "figure", "pairs"]

_MAX_TEXT = 300


def figure(caption: str, alt: str, plot: Callable[[], str]) -> Block:
    """A drawing, or a word on what would draw it: a missing extra must not cost the report of a long run."""
    try:
        return Figure(plot(), caption, alt)
    except MissingExtraError as e:
        return Note("info", f"{caption}: not drawn. {e}")


def pairs(values: Mapping[str, Any], note: str = "") -> Table:
    """A table of names and values, without a heading."""
    return Table(("", ""), tuple((name, cell(value)) for name, value in values.items()), note=note)


def cell(value: Any) -> str:
    """Any JSON value as the text of one table cell."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return yes_no(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and all(isinstance(v, str | int) for v in value):
        value = ", ".join(map(str, value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
