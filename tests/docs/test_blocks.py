"""Every code block of the documentation works: Python runs, in order, page by page; every command line parses."""

import re
import shlex
from pathlib import Path

import pytest

from netfit.cli._app import app
from netfit.errors import DataNotFound, MissingExtraError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "rooms").glob("*.md"))]
SLOW = {"bayes.md"}  # networks are trained for it

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the installed package has no docs")


def blocks(page, language):
    """Texts of the fenced blocks of one language, in order."""
    fenced = re.findall(r"^```(\S*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    return [text for name, text in fenced if name == language]


def python_pages():
    return [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
        if blocks(page, "python")
    ]


@pytest.mark.parametrize("page", python_pages())
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    try:
        for block in blocks(page, "python"):
            exec(compile(block, str(page), "exec"), names)
    except (DataNotFound, MissingExtraError) as e:
        pytest.skip(str(e))


def commands(page):
    """The netfit commands behind the prompts of a page, without comments."""
    for block in blocks(page, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                for command in re.split(r"\s#|$", line[2:], maxsplit=1)[0].split("&&"):
                    words = shlex.split(command)
                    if words[0] == "netfit":
                        yield words[1 : words.index("|") if "|" in words else None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_parse(page):
    assert blocks(page, "") == [], "nobody checks a block without a language"
    for words in commands(page):
        app.parse_args(words, print_error=False, exit_on_error=False)


def test_the_table_of_the_readme_names_commands():
    table = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    lines = re.findall(r"`netfit ([^`]+)`", "\n".join(table))
    assert len(lines) > 15
    for line in lines:
        words = shlex.split(line)
        if "..." in words:  # the command exists, whatever it needs
            words = [*words[: words.index("...")], "--help"]
        command, _, _ = app.parse_args(words, print_error=False, exit_on_error=False)
        assert command
