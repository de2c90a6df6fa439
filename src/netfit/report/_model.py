"""What a report is made of. Every room fills these few blocks; one template draws them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from netfit.errors import ConfigError

__all__ = ["Audio", "Block", "Code", "Facts", "Figure", "Note", "Report", "Section", "Table"]


@dataclass(frozen=True)
class Table:
    """Rows of text; a long one is folded away until the reader opens it.

    Args:
        columns: the headings.
        rows: one cell per column.
        align: one letter per column, ``l`` or ``r``; columns beyond its end are left-aligned.
        note: one line above the table that says what it shows.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str = ""
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One drawing.

    Args:
        svg: markup from `netfit.report.plots`. It is inserted as it is: never pass text from outside.
        caption: what the reader should see in it.
        alt: the same for a reader who cannot see it.
    """

    svg: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Facts:
    """The few numbers that matter, drawn large: label -> value, or label -> (value, small print)."""

    values: Mapping[str, str | tuple[str, str]]


@dataclass(frozen=True)
class Note:
    """A sentence the reader must not miss."""

    kind: Literal["info", "warning"]
    text: str


@dataclass(frozen=True)
class Code:
    """Text in a fixed-width font, such as commands to run."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Audio:
    """A sound to play.

    Args:
        uri: ``data:audio/...``; the page loads nothing from elsewhere.
        caption: what is heard.
    """

    uri: str
    caption: str

    def __post_init__(self) -> None:
        if not self.uri.startswith("data:audio/"):
            raise ConfigError(f"a sound of a report must be a data:audio/ address, not {self.uri[:40]!r}")


Block = Table | Figure | Facts | Note | Code | Audio


@dataclass(frozen=True)
class Section:
    """A heading, an optional paragraph and blocks; consecutive figures stand side by side where there is room."""

    title: str
    text: str = ""
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Report:
    """One page. The subtitle is the verdict: what a reader in a hurry takes away."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
