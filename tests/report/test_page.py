"""The page: complete, well formed, safe against hostile text, the same bytes for the same report."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ArtifactError
from netfit.report import Code, Facts, Figure, Note, Report, Section, Table, plots, render, write

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = '</td></svg><script>alert("1")</script><img src=http://evil.example/x onerror=alert(2)> $\\frac{ & \' "'


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing at line {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def one_of_each(text: str = "words") -> Report:
    strip = plots.policy_strip([(text, 16, 8, "int8"), ("fc", 10, 10, text)])
    blocks = (
        Table((text, "n"), ((text, "1"),), "lr", text),
        Table(("a",), tuple((text,) for _ in range(40)), note=text),
        Table(("", ""), ((text, "2"),)),
        Figure(strip, text, text),
        Facts({text: text, "b": (text, text)}),
        Note("info", text),
        Note("warning", text),
        Code(text, text),
    )
    return Report(text, text, (Section(text, text, blocks), Section("Two", text)))


def assert_loads_nothing(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.seen:
        assert tag not in {"script", "link", "img", "iframe", "object", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "action", "data"}:
                assert value is not None and value.startswith("#")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_every_block_is_drawn_well_formed_and_loads_nothing() -> None:
    html = render(one_of_each())
    assert_loads_nothing(html)
    page = Page(html)
    assert {"table", "svg", "dl", "pre", "details", "nav", "figcaption"} <= {tag for tag, _ in page.seen}
    ids = [a["id"] for _, a in page.seen if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for a in page.all("a")}
    assert targets == {"#s1", "#s2"}


def test_hostile_text_stays_text() -> None:
    html = render(one_of_each(HOSTILE))
    assert_loads_nothing(html)
    assert "<script" not in html
    assert any(HOSTILE in text for text in Page(html).text)


@given(st.text(max_size=30))
def test_any_text_gives_a_well_formed_page(text: str) -> None:
    Page(render(Report(text, text, (Section(text, text, (Note("info", text), Code(text))),))))


def test_browser_is_told_to_refuse_scripts_and_requests() -> None:
    rules = [a["content"] for a in Page(render(one_of_each())).all("meta") if "http-equiv" in a]
    assert rules and "default-src 'none'" in str(rules[0]) and "script-src" not in str(rules[0])


def test_drawings_have_a_role_and_a_text_alternative() -> None:
    drawings = Page(render(one_of_each())).all("svg")
    assert drawings and all(d["role"] == "img" and d["aria-label"] == "words" for d in drawings)


def test_page_serves_light_dark_paper_and_phones() -> None:
    html = render(one_of_each())
    for needed in ("prefers-color-scheme: dark", "@media print", "color-scheme", "width=device-width"):
        assert needed in html


def test_dark_mode_gives_every_colour_of_the_drawings_a_dark_value() -> None:
    html = render(one_of_each())
    dark = html.split("prefers-color-scheme: dark")[1].split("}")[0]
    used = set(re.findall(r"var\((--[a-z0-9-]+)", html))
    assert {"--c1", "--muted", "--pale"} <= used
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", dark))


def test_equal_reports_give_equal_bytes() -> None:
    assert render(one_of_each()) == render(one_of_each())


def test_long_tables_are_folded_and_short_ones_are_not() -> None:
    def page(rows: int) -> str:
        return render(Report("t", "", (Section("s", "", (Table(("a",), (("1",),) * rows),)),)))

    assert "<details>" in page(100) and "100 rows" in page(100)
    assert "<details>" not in page(5)


def test_write_saves_the_page_and_keeps_the_old_one_when_it_cannot(tmp_path: Any) -> None:
    path = write(one_of_each(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == render(one_of_each())
    write(Report("\ud800", "", ()), tmp_path / "half.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="folder"):
        write(one_of_each(), tmp_path / "folder")
    assert path.read_text(encoding="utf-8") == render(one_of_each())
