"""The page of the roofs."""

import json

import pytest

from netfit.errors import ArtifactError
from netfit.report import from_run, render


def result(**changes):
    levels = {"l1": 3e11, "l2": 1e11, "dram": 1e10}
    layer = {
        "name": "a<b",
        "precision": "fp32",
        "operations": 2e9,
        "bytes": 1e7,
        "bound": "compute",
        "text": "why <it>",
    }
    return {
        "kind": "roofline",
        "model": "a<b",
        "peaks": {
            "device": "core", "caches": {"l1": 1 << 15, "l2": 1 << 20}, "read": levels, "write": levels,
            "ops": {"fp32": {"vector": 1e11}, "int8": {"vector": 4e11, "tiles": 3e12}},
            "curve": [[4096, 3e11], [1 << 18, 1e11]], "noise": {"fp32 vector": 0.01, "read dram": 0.8},
        },
        "operators": [{"name": "a", "kind": "conv2d", "bound_s": 1e-3, "bound": "l2"}],
        "layers": [
            {**layer, "implementation": "netfit", "measured_s": 0.025, "share": 0.8},
            {**layer, "implementation": "naive", "measured_s": 1.0, "share": 0.02, "noisy": True},
        ],
    } | changes  # fmt: skip


def page(tmp_path, facts):
    (tmp_path / "result.json").write_text(json.dumps(facts))
    return from_run(tmp_path)


def test_the_page_names_the_bounds(tmp_path):
    report = page(tmp_path, result())
    assert report.title == "How near a<b runs to the roofs"
    assert (
        report.subtitle
        == "1 of 1 of our kernels are bound by arithmetic; the bound explains at least 60% of the time of 1."
    )
    text = render(report)
    assert "why &lt;it&gt;" in text and "(noisy)" in text and text.count("<svg ") == 2
    assert "1 of 2 measurements were uneven" in text and "read dram: 80%" in text


def test_roofs_without_a_network(tmp_path):
    report = page(tmp_path, result(model=None, operators=[], layers=[]))
    assert report.subtitle == "One core does 100 GOP/s in fp32 and reads 300 GB/s from L1."
    assert [s.title for s in report.sections] == ["What one core can do", "Levels of the memory"]


def test_a_damaged_result_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"peaks\.read is 'fast'"):
        page(tmp_path, result(peaks={**result()["peaks"], "read": "fast"}))
