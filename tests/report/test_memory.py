"""The page of a memory plan."""

import json

import pytest

from netfit.errors import ArtifactError
from netfit.report import Figure, Note, from_run, render


def measured(peak, seconds):
    return {
        "peak": peak, "process_peak": None, "held": {"parameters": 1_000_000, "batch": 0}, "saved": peak // 2,
        "seconds": seconds, "timeline": [[0.1, 0], [0.5, peak - 1_000_000], [0.9, 10]],
    }  # fmt: skip


def result(**changes):
    row = {"name": "a<b", "kind": "relu", "shape": [8, 16], "bytes": 512_000, "kept_bytes": 16_000}
    plan = {
        "words": {"a<b": "q4"}, "budget": 5_000_000, "base": measured(9_000_000, 0.2),
        "after": measured(4_500_000, 0.25), "predicted_peak": 4_400_000, "predicted_error": 0.08, "error": 0.09,
        "rows": [row],
    }  # fmt: skip
    return {"kind": "memory", "model": "net", "batch": 32, "data": "cifar10", "plan": plan | changes}


def page(tmp_path, facts):
    (tmp_path / "result.json").write_text(json.dumps(facts))
    return from_run(tmp_path)


def test_the_page_states_the_price(tmp_path):
    report = page(tmp_path, result())
    assert report.subtitle == "A step of 32 samples takes 4.50 MB instead of 9.00 MB, at a gradient error of 0.0900."
    text = render(report)
    assert "a&lt;b" in text and "a<b" not in text and "90 % used" in text
    assert sum(isinstance(b, Figure) for s in report.sections for b in s.blocks) == 1


def test_noise_is_said_to_be_noise_and_no_compression_too(tmp_path):
    facts = result(words={}, rows=[], budget=None, after=measured(9_000_000, 0.2), error=0.0) | {"data": None}
    report = page(tmp_path, facts)
    assert report.subtitle.endswith("nothing has to be compressed.")
    assert any(isinstance(b, Note) and "noise" in b.text for s in report.sections for b in s.blocks)


def test_a_broken_result_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"plan\.error"):
        page(tmp_path, result(error="much"))
