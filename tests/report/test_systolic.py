"""The page of a sweep over systolic arrays."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from netfit.errors import ArtifactError
from netfit.report import Figure, from_run, plots, render


def result(**changes):
    fields = {"rows": 16, "cols": 32}
    return {
        "kind": "systolic",
        "arrays": 1024,
        "objectives": ["cycles", "energy_j"],
        "robust": {"objective": "edp", "fields": fields, "regret": 0.125},
        "networks": [
            {"model": "a<b", "macs": 4e7, "regret": 0.125, "best": {"rows": 8, "cols": 8, "edp": 1.0}},
            {"model": "net2", "macs": 1e6, "regret": 0.0, "best": {"rows": 16, "cols": 32, "edp": 2.0}},
        ],
        "front": [
            {"fields": fields, "values": {"cycles": 1.0, "energy_j": 1.5}},
            {"fields": {"rows": 8, "cols": 8}, "values": {"cycles": 1.5, "energy_j": 1.0}},
        ],
        "sample": [[1.0, 1.5], [2.0, 2.0], [1.5, 1.0]],
        "map": {"rows": [8, 16], "cols": [8, 16, 32], "regret": [[0.5, 0.4, 0.3], [0.4, 0.2, 0.125]]},
        "layers": [
            {"model": "net2", "name": n, "kind": "conv2d", "utilization": u, "cause": "folds", "text": "why " + n}
            for n, u in (("good", 0.9), ("bad", 0.1))
        ],
        "source": {"compat": None, "config": {"dataflow": "ws"}},
        "arguments": {"models": ["a<b", "net2"]},
    } | changes


def page(tmp_path, facts):
    (tmp_path / "result.json").write_text(json.dumps(facts))
    return from_run(tmp_path)


def test_the_page_says_which_array_and_why(tmp_path):
    report = page(tmp_path, result())
    assert report.title == "Systolic arrays for a<b, net2"
    assert report.subtitle.startswith("16 x 32 serves all networks with at most 12.50 % more energy x time")
    text = render(report)
    assert "a&lt;b" in text and "a<b" not in text
    assert text.index("why bad") < text.index("why good")
    assert text.count("<svg ") == 2 == sum(isinstance(b, Figure) for s in report.sections for b in s.blocks)


def test_three_objectives_have_no_line_and_one_array_no_map(tmp_path):
    front = [{"fields": {"rows": 8, "cols": 8}, "values": {"cycles": 1.0, "energy_j": 1.0, "edp": 1.0}}]
    report = page(tmp_path, result(objectives=["cycles", "energy_j", "edp"], front=front, map=None))
    assert "Pareto front" not in render(report)
    assert sum(isinstance(b, Figure) for s in report.sections for b in s.blocks) == 1


def test_a_damaged_result_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"robust\.regret is 'much'"):
        page(tmp_path, result(robust={"objective": "edp", "fields": {"rows": 1, "cols": 1}, "regret": "much"}))


def test_the_heat_map_is_reproducible_and_free_of_fixed_colours():
    def draw():
        return plots.heat_map(
            [[0.0, 1.0], [1.0, 2.0]], [1, 2], [1, 2], levels=[0.5, 1.5], labels=["low", "middle", "high"],
            xlabel="columns", ylabel="rows", chosen=(1, 1),
        )  # fmt: skip

    svg = draw()
    assert svg == draw()
    texts = {e.text for e in ET.fromstring(svg).iter("text")}
    assert {"low", "middle", "high", "columns", "rows", "chosen"} <= texts
    assert not re.findall(r"(?<!,)#[0-9a-f]{6}\b", svg)
