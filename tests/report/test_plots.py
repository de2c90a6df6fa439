"""The drawings show the data that went in, in colours the page can change."""

import re
import xml.etree.ElementTree as ET

import pytest

from netfit.report import plots

DRAWINGS = {
    "pareto": lambda: plots.scatter_pareto(
        {"greedy": [(0.9, 0.8), (0.5, 0.7)], "tpe": [(0.2, 0.6)]},
        front=[(0.2, 0.6), (0.5, 0.7)],
        chosen=(0.2, 0.6),
        goal=0.25,
    ),
    "bars": lambda: plots.bars_grouped(["conv1", "fc"], {"before": [3.0, 1.0], "after": [1.0, 0.5]}, xlabel="ms"),
    "policy": lambda: plots.policy_strip([("conv1", 16, 12, "int8"), ("fc", 10, 10, "ternary")]),
    "lines": lambda: plots.lines({"a": ([1, 2, 3], [1, 4, 9], [0, 3, 8], [2, 5, 10])}, xlabel="x", ylabel="y"),
}


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter("text")]


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_is_reproducible_scalable_and_free_of_fixed_colours(name: str) -> None:
    svg = DRAWINGS[name]()
    assert svg == DRAWINGS[name]()
    root = ET.fromstring(svg)
    assert root.get("viewBox") and root.get("width") is None
    assert "http" not in svg and "font-family" not in svg and "<metadata" not in svg
    fixed = {c for c in re.findall(r"(?<!,)#[0-9a-f]{6}\b", svg)}
    assert fixed == set()  # a colour appears only as the fallback of a CSS variable


def test_every_reference_finds_its_target_and_two_drawings_share_no_id() -> None:
    ids: list[str] = []
    for draw in DRAWINGS.values():
        svg = draw()
        own = re.findall(r'\bid="([^"]+)"', svg)
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_pareto_marks_goal_choice_and_groups() -> None:
    svg = DRAWINGS["pareto"]()
    assert {"goal 0.25", "chosen", "greedy", "tpe", "Pareto front"} <= set(texts(svg))
    assert svg.count("<use") >= 3


def test_policy_names_channels_and_precision_of_every_layer() -> None:
    assert {"conv1", "fc", "12/16 int8", "10/10 ternary"} <= set(texts(DRAWINGS["policy"]()))


def test_kept_bar_is_as_long_as_the_channels_kept() -> None:
    def width(path: str) -> float:
        xs = [float(x) for x in re.findall(r"[ML] (\S+)", path)]
        return max(xs) - min(xs)

    root = ET.fromstring(plots.policy_strip([("conv1", 16, 4, "int8")]))
    paths = [(p.get("style") or "", p.get("d") or "") for p in root.iter("path") if p.get("clip-path")]
    pale = next(width(d) for style, d in paths if "--pale" in style)
    kept = next(width(d) for style, d in paths if "--c1" in style)
    assert kept / pale == pytest.approx(4 / 16, rel=1e-3)


def test_names_with_markup_and_foreign_letters_are_drawn_as_they_are() -> None:
    names = ["$\\frac{", "<b>&", "层.卷积", "a\x00\ud800\n", "a_very_long_module_path.block11.conv2.depthwise"]
    shown = texts(plots.bars_grouped(names, {"t": [1.0, 2.0, 3.0, 4.0, 5.0]}, xlabel="ms"))
    assert set(names[:3]) <= set(shown)
    assert any(s.startswith("…") and s.endswith("conv2.depthwise") for s in shown)


def test_values_that_are_no_numbers_are_left_out() -> None:
    bad = [(float("nan"), 0.5), (0.3, float("inf")), (0.4, 0.6)]
    assert plots.scatter_pareto({"a": bad}, front=bad, chosen=bad[0], goal=float("nan")).count("<use") > 0
    assert plots.bars_grouped(["a", "b"], {"t": [float("inf"), 1.0]}, xlabel="ms")


def test_no_data_is_an_empty_frame() -> None:
    assert plots.scatter_pareto({}).startswith("<svg")
    assert plots.bars_grouped([], {}, xlabel="ms").startswith("<svg")
    assert plots.policy_strip([]).startswith("<svg")
    assert plots.lines({}, xlabel="x", ylabel="y").startswith("<svg")
