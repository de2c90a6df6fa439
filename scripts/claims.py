"""Write docs/claims.md: what 22 papers claim, what netfit measured, and whether it holds.

The claims and the places of our figures in benchmarks/results are data: ``claims.toml`` beside this file, which says at
its top how an entry is written. Every figure of ours and every verdict is computed here.

    python scripts/claims.py            # write the page
    python scripts/claims.py --check    # only say whether it is up to date
"""

import json
import operator
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TABLE = Path(__file__).with_suffix(".toml")
PAGE = ROOT / "docs" / "claims.md"
LIMITS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}
HEAD = """# What the papers claim, and what we measured

Written by `make claims` from `benchmarks/results/*.json` and `scripts/claims.toml`, not by hand. Ours are figures of
one machine (two cores of an x86 server, no GPU) and of the data that could be had; theirs are quoted from abstracts,
repositories and published summaries. ✓ the figure holds, ✗ it does not (what was wanted stands behind it), • only told.
*Reproduced*: no figure that repeats the paper is missing; *beyond*: and one goes further (»✓); *not reproduced*: one is
missing; *unverifiable here*: what the claim is about cannot be had on this machine.

"""


class ClaimError(Exception):
    """An entry of the table names something that is not in the result files."""


class Judged(NamedTuple):
    """One figure of ours: its words, whether it is as wanted (``None``: nothing is wanted of it), why it is missing."""

    text: str
    holds: bool | None
    beyond: bool
    wanted: str
    problem: str = ""

    def __str__(self) -> str:
        if self.holds is None:
            return f"• {self.text}"
        mark = ("»" if self.beyond else "") + ("✓" if self.holds else "✗")
        return f"{mark} {self.text}" + ("" if self.holds else f" (wanted: {self.wanted})")


def result(file: str) -> dict[str, Any]:
    """What a benchmark left."""
    place = RESULTS / f"{file}.json"
    if not place.exists():
        raise ClaimError(f"{place.name} is not in {RESULTS.relative_to(ROOT)}; run its benchmark")
    content: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return content


def rows(content: Mapping[str, Any], figure: Mapping[str, Any], where: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows whose columns are as asked: text by pattern, anything else by value."""
    given = column(content, figure.get("rows", "rows"), figure["file"])
    if "front" in figure:
        given = [row for row in given if not any(_beats(other, row, figure["front"]) for other in given)]
    found = [
        row
        for row in given
        if all(fnmatchcase(str(row.get(k)), v) if isinstance(v, str) else row.get(k) == v for k, v in where.items())
    ]
    if not found and "count" not in figure:
        raise ClaimError(f"{figure['file']}: no row has {dict(where)}")
    return found


def _beats(a: Mapping[str, Any], b: Mapping[str, Any], columns: Sequence[str]) -> bool:
    return all(a[c] <= b[c] for c in columns) and any(a[c] < b[c] for c in columns)


def column(row: Mapping[str, Any], keys: str | Sequence[str], place: str) -> Any:
    """A value of a row, or of the file by its path of keys."""
    value: Any = row
    for key in [keys] if isinstance(keys, str) else keys:
        if not isinstance(value, Mapping) or key not in value:
            raise ClaimError(f"{place}: nothing is called {key!r}")
        value = value[key]
    return value


def values(figure: Mapping[str, Any]) -> list[Any]:
    """The numbers, or words, of one entry, each less or over the one it is compared with."""
    content, file = result(figure["file"]), figure["file"]
    found = rows(content, figure, figure["where"]) if "where" in figure else [content]
    if "count" in figure:
        return [len(found)]
    drawn = [_number(column(row, figure["value"], file), figure) for row in found]
    for word, compute in (("less", operator.sub), ("over", operator.truediv)):
        if word in figure:
            other = column(rows(content, figure, figure[word])[0], figure["value"], file)
            drawn = [compute(value, other) for value in drawn]
    return drawn


def _number(value: Any, figure: Mapping[str, Any]) -> Any:
    """The number that the figure's pattern finds in a text; without a pattern the value itself."""
    if "number" not in figure:
        return value
    found = re.search(figure["number"], str(value))
    if not found:
        raise ClaimError(f"{figure['file']}: no {figure['number']!r} in {value!r}")
    return float(found[1])


def judge(figure: Mapping[str, Any]) -> Judged:
    """Say what was measured and whether it is as wanted: of several rows all must be."""
    must = figure.get("must", "")
    wanted, beyond = figure.get("wanted", must), figure.get("beyond", False)
    try:
        measured = values(figure)
        good = _good(figure, measured, *must.split(" ", 1)) if must else measured
        shown = [figure.get("times", 1) * v if _is_number(v) else v for v in measured]
        text = figure["text"].format(*shown, n=len(shown), kept=sum(map(bool, good)), all=", ".join(map(str, shown)))
    except (ClaimError, ArithmeticError, LookupError, TypeError, ValueError) as e:  # a file in another form
        words = re.sub(r"\{[^}]*\}", "…", figure["text"])
        return Judged(f"not measured: {words}", False if must else None, beyond, wanted, str(e))
    return Judged(text, all(good) if must else None, beyond, wanted)


def _good(figure: Mapping[str, Any], measured: Sequence[Any], word: str, limit: str) -> list[bool]:
    """Which of the values, or of the columns that decide in their place, are within the limit."""
    if "by" in figure:
        measured = values(
            {key: figure[key] for key in ("file", "rows", "where") if key in figure} | {"value": figure["by"]}
        )
    return [LIMITS[word](v, float(limit)) if _is_number(v) else str(v) == limit for v in measured]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def verdict(paper: Mapping[str, Any], figures: Sequence[Judged]) -> str:
    """One of four words, and why when it is one of the last two."""
    if "unverifiable" in paper:
        return f"**unverifiable here**: {paper['unverifiable']}"
    missed = sum(f.holds is False for f in figures if not f.beyond)
    if missed:
        wanted = sum(f.holds is not None for f in figures if not f.beyond)
        return f"**not reproduced** ({missed} of {wanted} figures): {paper['why']}"
    return "**beyond**" if any(f.holds for f in figures if f.beyond) else "**reproduced**"


def command(file: str, commands: Mapping[str, str]) -> str:
    """The command that wrote a result file: named in it, in the table, or its benchmark's own."""
    content = result(file)
    told = commands.get(file) or content.get("command") or f"python -m benchmarks {file}"
    return told.format(**content)


def page(table: Mapping[str, Any]) -> str:
    """The whole page."""
    lines = [HEAD + "| paper | claim | here | command and result file | verdict |", "|---|---|---|---|---|"]
    counts: dict[str, int] = {}
    for paper in table["paper"]:
        figures = [judge(figure) for figure in paper["figure"]]
        decided = verdict(paper, figures)
        counts[decided.split("**")[1]] = counts.get(decided.split("**")[1], 0) + 1
        files = dict.fromkeys(figure["file"] for figure in paper["figure"])
        sources = [
            f"`{command(file, table['commands'])}` → [{file}](../benchmarks/results/{file}.json)"
            for file in files
            if (RESULTS / f"{file}.json").exists()
        ]
        cells = [f"{paper['title']} ({paper['year']})", paper["claim"], "<br>".join(map(str, figures)),
                 "<br>".join(sources), decided]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|").strip() for cell in cells) + " |")
    total = ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))
    return "\n".join([*lines, "", f"{len(table['paper'])} papers: {total}.", ""])


def problems(table: Mapping[str, Any]) -> list[str]:
    """Rows without a figure, and what the table names and the result files do not have, unless it is known."""
    found = []
    for paper in table["paper"]:
        missing = [(judged.problem, figure) for figure in paper["figure"] if (judged := judge(figure)).problem]
        whole = len(missing) == len(paper["figure"])
        found += [f"{paper['title']}: {problem}" for problem, figure in missing if whole or not figure.get("open")]
    return found


def main(words: Sequence[str]) -> int:
    """Write the page, or with ``--check`` say whether it is the one that would be written."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    text, found = page(table), problems(table)
    if "--check" not in words:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        found.append(f"{PAGE.relative_to(ROOT)} is not what the result files say; run `make claims`")
    for line in found:
        print(f"claims: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
