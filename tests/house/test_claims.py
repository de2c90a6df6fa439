"""docs/claims.md says what the result files say, for every paper."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "claims.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the installed package has no claims")


@pytest.fixture
def claims():
    spec = importlib.util.spec_from_file_location("claims", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(claims):
    return tomllib.loads(claims.TABLE.read_text(encoding="utf-8"))


def test_every_paper_has_its_row(table):
    titles = [paper["title"] for paper in table["paper"]]
    assert len(titles) == len(set(titles)) == 22


def test_every_figure_is_in_a_result_file(claims, table):
    assert claims.problems(table) == []


def test_the_page_is_what_the_result_files_say(claims, table):
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page(table), "run `make claims`"


def test_commands_name_benchmarks_that_exist(claims, table):
    files = {figure["file"] for paper in table["paper"] for figure in paper["figure"]}
    for file in sorted(file for file in files if (claims.RESULTS / f"{file}.json").exists()):
        told = claims.command(file, table["commands"])
        modules = re.findall(r"python -m benchmarks[. ](\w+)", told)
        assert told.startswith("netfit ") or modules, told
        assert all((ROOT / "benchmarks" / f"{module}.py").exists() for module in modules), told


@pytest.fixture
def measured(claims, tmp_path, monkeypatch):
    """One result file of two rows in the place of the real ones."""
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    rows = [{"what": "a 1", "value": 2.0, "met": True}, {"what": "a 2", "value": 5.0, "met": False, "note": "x 7.5"}]
    (tmp_path / "it.json").write_text(json.dumps({"rows": rows, "whole": {"part": 3}, "date": "2026"}))
    return claims


@pytest.mark.parametrize(
    ("figure", "text", "holds"),
    [
        ({"where": {"what": "a 1"}, "value": "value", "must": "<= 2", "text": "{0:.1f}"}, "2.0", True),
        ({"where": {"what": "a *"}, "value": "value", "must": "<= 2", "text": "{kept} of {n}"}, "1 of 2", False),
        ({"where": {"what": "a 2"}, "less": {"what": "a 1"}, "value": "value", "text": "{0:+.0f}"}, "+3", None),
        ({"where": {"what": "a 2"}, "over": {"what": "a 1"}, "value": "value", "text": "{0}"}, "2.5", None),
        (
            {"where": {"what": "a 2"}, "value": "note", "number": r"x ([\d.]+)", "must": "> 7", "text": "{0}"},
            "7.5",
            True,
        ),
        (
            {"where": {"what": "a *"}, "value": "what", "by": "met", "must": "== True", "text": "{all}"},
            "a 1, a 2",
            False,
        ),
        ({"value": ["whole", "part"], "times": 100, "must": ">= 3", "text": "{0} %"}, "300 %", True),
        ({"where": {"what": "b"}, "value": "value", "count": True, "must": ">= 1", "text": "{0}"}, "0", False),
        ({"front": ["value"], "where": {}, "value": "what", "text": "{all}"}, "a 1", None),
    ],
)
def test_figures_are_computed(measured, figure, text, holds):
    found = measured.judge({"file": "it", **figure})
    assert (found.text, found.holds) == (text, holds)


def test_what_is_missing_is_no_success(measured):
    for gone in ({"file": "that"}, {"file": "it", "where": {"what": "c"}}):
        found = measured.judge({"value": "value", "must": "<= 2", "text": "{0}", **gone})
        assert found.holds is False and found.text == "not measured: …"
    assert "no row has" in found.problem


def test_problems_are_told_unless_they_are_known(measured):
    here = {"file": "it", "where": {"what": "a 1"}, "value": "value", "text": "{0}"}
    gone = {"file": "that", "value": "value", "text": "{0}", "must": "> 1"}
    for figures, problems in (([here, gone], 1), ([here, {**gone, "open": True}], 0), ([{**gone, "open": True}], 1)):
        assert len(measured.problems({"paper": [{"title": "it", "figure": figures}]})) == problems


def test_verdicts(measured):
    good, bad, more = (measured.Judged("", *case, "") for case in ((True, False), (False, False), (True, True)))
    paper = {"why": "so"}
    assert measured.verdict(paper, [good]) == "**reproduced**"
    assert measured.verdict(paper, [good, more]) == "**beyond**"
    assert measured.verdict(paper, [good, bad, more]) == "**not reproduced** (1 of 2 figures): so"
    assert measured.verdict({"unverifiable": "no board"}, [bad]) == "**unverifiable here**: no board"
