"""The pages of an array and of chips of resistive memory."""

import json

import pytest

from netfit.errors import ArtifactError
from netfit.report import Figure, Note, from_run, render

ORDER = {
    "kind": "analog-hardware", "task": "order", "digital": 0.95, "unordered": 0.93, "natural": 0.80,
    "random": [0.9, 0.92, 0.91], "balanced": 0.925, "mac": {"overdrive": 2.0}, "judged": 300,
    "arguments": {"model": "a<b", "seed": 0},
}  # fmt: skip
PROGRAM = {
    "kind": "analog-hardware", "task": "program", "digital": 0.9, "times": [0.0, 3600.0, 172800.0],
    "plain": [[0.89, 0.8, 0.7], [0.88, 0.82, 0.74]], "compensated": [[0.89, 0.88, 0.86], [0.88, 0.87, 0.88]],
    "errors": {"fc1": [0.01, 0.02, 0.03]}, "crossbar": {"device": "nandakumar2019"}, "judged": 2000,
    "arguments": {"model": "mlp"},
}  # fmt: skip


def page(tmp_path, facts):
    (tmp_path / "result.json").write_text(json.dumps(facts))
    return from_run(tmp_path)


def blocks(report, kind):
    return [b for s in report.sections for b in s.blocks if isinstance(b, kind)]


def test_order_page(tmp_path):
    report = page(tmp_path, ORDER)
    assert "costs −13.00 points" in report.subtitle and "leaves −0.50 points" in report.subtitle
    assert not blocks(report, Note)
    html = render(report)
    assert "a&lt;b" in html and "a<b on" not in html and "90.00 % to 92.00 %" in html


def test_a_network_that_the_order_does_not_hurt(tmp_path):
    (note,) = blocks(page(tmp_path, ORDER | {"natural": 0.929}), Note)
    assert "hardly matters" in note.text


def test_program_page(tmp_path):
    report = page(tmp_path, PROGRAM)
    assert report.subtitle.startswith("2 d after programming 72.00 % are right, 87.00 % with")
    (figure,) = blocks(report, Figure)
    assert "87.00 %" in figure.alt
    html = render(report)
    assert "0.0300" in html and "70.00 % to 74.00 %" in html


def test_one_time_needs_no_curve(tmp_path):
    short = {"times": [0.0], "plain": [[0.89]], "compensated": [[0.89]], "errors": {}}
    assert not blocks(page(tmp_path, PROGRAM | short), Figure)


def test_a_damaged_result_names_the_field(tmp_path):
    with pytest.raises(ArtifactError, match="digital"):
        page(tmp_path, ORDER | {"digital": "high"})
