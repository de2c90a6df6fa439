"""The report of a result nobody designed a page for: its JSON as tables."""

from typing import Any

from ._blocks import cell, pairs
from ._model import Block, Code, Report, Section, Table

__all__ = ["generic_report"]

_MAX_ROWS = 2000


def generic_report(result: dict[str, Any]) -> Report:
    """Plain values first, then one section per object or list."""
    plain = {k: v for k, v in result.items() if not isinstance(v, dict | list) and k not in ("kind", "command")}
    nested = {k: v for k, v in result.items() if isinstance(v, dict | list) and v}
    sections = [Section("Result", blocks=(pairs(plain),))] if plain else []
    sections += [Section(_words(key), blocks=(_block(value),)) for key, value in nested.items()]
    if command := result.get("command"):
        sections.append(Section("Command", blocks=(Code(str(command)),)))
    title = f"{_words(str(result.get('kind') or 'unnamed'))} run"
    return Report(title, "Every value of its result.json.", tuple(sections))


def _block(value: dict[str, Any] | list[Any]) -> Block:
    if isinstance(value, dict):
        return pairs(value)
    note = f"The first {_MAX_ROWS} of {len(value)}" if len(value) > _MAX_ROWS else ""
    value = value[:_MAX_ROWS]
    if not all(isinstance(item, dict) for item in value):
        return Table(("", ""), tuple((str(i), cell(v)) for i, v in enumerate(value)), "r", note)
    columns = tuple(dict.fromkeys(key for item in value for key in item))
    numeric = [all(_is_number(item.get(c)) for item in value) for c in columns]
    rows = tuple(tuple(cell(item.get(c)) for c in columns) for item in value)
    return Table(columns, rows, "".join("r" if n else "l" for n in numeric), note)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _words(key: str) -> str:
    return (key[:1].upper() + key[1:]).replace("_", " ")
