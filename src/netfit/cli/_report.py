"""``netfit report``: the page of a run, written again."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ._options import Json
from ._output import Output, answer

__all__ = ["report"]


def report(run: Annotated[Path, Parameter(help="Directory of a finished run.")], /, *, as_json: Json = False) -> Output:
    """Write report.html into a run directory from its result.json."""
    from netfit.report import from_run, write

    page = write(from_run(run), run / "report.html")
    return answer(as_json, {"report": page}, str(page))
