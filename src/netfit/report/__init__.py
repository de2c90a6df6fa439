"""One self-contained HTML page per run: readable offline, on a phone, on paper, in the dark.

`from_run` turns a run directory into a `Report`, `write` saves it. A job with results of its own builds a
`Report` from the blocks here and the drawings of `plots`, and looks like every other page.
"""

from . import plots
from ._model import Audio, Code, Facts, Figure, Note, Report, Section, Table
from ._render import render, write
from ._run import from_run

__all__ = [
    "Audio",
    "Code",
    "Facts",
    "Figure",
    "Note",
    "Report",
    "Section",
    "Table",
    "from_run",
    "plots",
    "render",
    "write",
]
