"""The documentation's links lead somewhere and its Python runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
needs_checkout = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the installed package has no docs")


@needs_checkout
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_exist(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@needs_checkout
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        script = compile(block, "README.md", "exec")
        exec(script, {})
    assert (tmp_path / "policy.toml").exists()


@needs_checkout
@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda p: p.name)
def test_decision_records_are_short(page):
    assert len(page.read_text().splitlines()) <= 40
