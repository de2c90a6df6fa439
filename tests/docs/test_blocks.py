"""Every code block of the documentation works: Python runs, in order, page by page; every command line parses."""

import itertools
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from netfit.bayes.pfp._registry import RULES, SETTINGS
from netfit.cli import main
from netfit.cli._app import app
from netfit.errors import DataNotFound, MissingExtraError

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "rooms").glob("*.md"))]
SLOW = {"bayes.md"}  # networks are trained for it

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the installed package has no docs")


def fenced(page):
    """Language and text of every block, in order."""
    return re.findall(r"^```(\S*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def blocks(page, language):
    return [text for name, text in fenced(page) if name == language]


def python_pages():
    return [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
        if blocks(page, "python")
    ]


@pytest.fixture
def own_rules():
    """Moment rules that a page registers end with it."""
    kept = [(registry, dict(registry)) for registry in (RULES, SETTINGS)]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)


@pytest.mark.parametrize("page", python_pages())
@pytest.mark.usefixtures("own_rules")
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    try:
        for block in blocks(page, "python"):
            exec(compile(block, str(page), "exec"), names)
    except (DataNotFound, MissingExtraError) as e:
        pytest.skip(str(e))


def commands(block):
    """The netfit commands behind the prompts of a block, without comments."""
    for line in block.splitlines():
        if line.startswith("$ "):
            words = shlex.split(re.split(r"\s#", line[2:], maxsplit=1)[0])
            for _, command in itertools.groupby(words, lambda word: word in ("&&", "|")):
                if (command := list(command))[0] == "netfit":
                    yield command[1:]


@pytest.mark.parametrize("page", [TUTORIAL, *PAGES], ids=lambda page: page.name)
def test_command_lines_parse(page):
    assert blocks(page, "") == [], "nobody checks a block without a language"
    for words in commands("".join(blocks(page, "console"))):
        app.parse_args(words, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_tutorial_works_from_its_first_line_to_its_last(long, tmp_path, monkeypatch, capsys):
    """Without a board, and without training unless there is time for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["board.py"])
    names = {"__name__": "__page__"}
    for language, text in fenced(TUTORIAL):
        if language == "python":
            if file := re.match(r"# (\w+\.py)\n", text):
                (tmp_path / file[1]).write_text(text)
            exec(compile(text, "tutorial.md", "exec"), names)
        for words in commands(text) if language == "console" else ():
            trained = words[0] in ("compress", "report")
            if "remote:" not in " ".join(words) and (long or not trained):
                assert main(words) == 0, capsys.readouterr().err
    difference = names["loaded"](names["x"]).detach() - torch.from_numpy(names["there"])
    assert float(difference.abs().max()) < 0.1


@pytest.mark.parametrize("page", [p for p in PAGES[1:] if p.name != "index.md"], ids=lambda page: page.name)
def test_a_room_says_when_to_take_it_and_what_bites(page):
    text = page.read_text(encoding="utf-8")
    wanted = [
        r"^\*\*When\.\*\*",
        r"\*\*When not\.\*\*",
        "How it works|Two stages",
        "Gotchas|Limits",
        r"\*\*Papers?\.\*\*",
    ]
    assert [heading for heading in wanted if not re.search(heading, text, re.M)] == []


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
