"""A `Report` to HTML text and to a file."""

import functools
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from netfit import io
from netfit._version import __version__

from ._model import Block, Figure, Report

__all__ = ["render", "write"]


def render(report: Report) -> str:
    """The whole page as one string: no script, no request to anywhere, equal bytes for equal reports.

    >>> render(Report("a < b", "", ())).count("a &lt; b")
    2
    """
    return _page().render(report=report, version=__version__)


def write(report: Report, path: str | Path) -> Path:
    """Save the page; an existing file is replaced in one step or kept.

    Raises:
        ArtifactError: the file cannot be written.
    """
    path = Path(path)
    io.write_bytes(path, render(report).encode(errors="replace"))  # JSON may hold half a surrogate pair
    return path


@functools.cache
def _page() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("netfit.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(kind=_kind, drawing=_drawing)
    return environment.get_template("page.html")


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _drawing(figure: Figure) -> Markup:
    """The SVG, made one image with a text alternative for screen readers."""
    label = f'<svg role="img" aria-label="{escape(figure.alt)}" '
    return Markup(figure.svg.replace("<svg ", label, 1))
