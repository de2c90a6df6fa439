"""The documentation's links lead somewhere, and decision records are short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("0*.md"))]
needs_checkout = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the installed package has no docs")


@needs_checkout
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_exist(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@needs_checkout
@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("0*.md")), ids=lambda p: p.name)
def test_decision_records_are_short(page):
    assert len(page.read_text().splitlines()) <= 40
