"""The page of a trade-off study."""

import json

import pytest

from netfit.errors import ArtifactError
from netfit.report import Figure, from_run, render


def point(name, group, accuracy, ratio, **more):
    on = {"runs": True, "why": None, "time_s": 1e-3, "cycles": 5000, "ratio": 0.5}
    return {
        "name": name, "group": group, "failed": None, "accuracy": accuracy, "ratio": ratio, "ratio_lo": ratio,
        "ratio_hi": ratio, "latency_s": 1e-4, "noisy": False, "macs": 2e6, "file_bytes": 2e5, "weight_bytes": 1e5,
        "act_bytes": 5e4, "added_bytes": 1e6, "asked": {"int8": 4}, "executed": {"int8": 4}, "on": {"vta": on},
        "costs": {"latency": ratio, "file": 2e5, "vta": 0.5}, "run": f"points/{name}",
    } | more  # fmt: skip


def result(**changes):
    here = {"runs": False, "why": "it runs int8", "time_s": 2e-3, "cycles": 10000, "ratio": 1.0}
    full = point("uniform-fp32", "quantization", 0.9, 1.0, asked={"w2a2": 4}, on={"vta": here})
    full["costs"]["vta"] = None
    return {
        "kind": "tradeoff", "model": "a<b", "data": "digits", "target": "host", "seed": 3,
        "base": {"accuracy": 0.89, "macs": 4e6, "weight_bytes": 4e5, "act_bytes": 2e5, "on": {"vta": here}},
        "points": [full, point("uniform-int8", "quantization", 0.895, 0.4),
                   {"name": "butterfly", "group": "structured layers", "failed": "no linear layer"}],
        "fronts": {"latency": ["uniform-int8", "uniform-fp32"], "file": [], "vta": ["uniform-int8"]},
        "findings": [{"about": "reference", "text": "first"}, {"about": "verdict", "text": "int8 pays here."}],
        "yardstick": {"runtime": "openvino", "latency_s": 2e-4}, "retraining": {"epochs": 1}, "images": {"test": 360},
    } | changes  # fmt: skip


def page(tmp_path, facts):
    (tmp_path / "result.json").write_text(json.dumps(facts))
    return from_run(tmp_path)


def test_the_page_tells_what_pays_and_what_cannot_be_done(tmp_path):
    report = page(tmp_path, result())
    assert report.title == "a<b on digits: what pays where" and report.subtitle == "int8 pays here."
    assert sum(isinstance(b, Figure) for s in report.sections for b in s.blocks) == 3
    text = render(report)
    assert "a&lt;b" in text and "a<b" not in text
    assert "4 w2a2" in text and "4 int8" in text and "no linear layer" in text
    assert "1 of 2 networks do not run there as trained" in text and "[10.0 k (x 1.00)]" in text
    assert "netfit tradeoff a&lt;b --data digits --target host --seed 3" in text


def test_without_other_targets_and_files(tmp_path):
    plain = point("uniform-fp32", "quantization", 0.9, 1.0, on={}, file_bytes=None, executed={})
    plain["costs"] = {"latency": 1.0, "file": 1e5}
    fronts, base = {"latency": ["uniform-fp32"], "file": ["uniform-fp32"]}, result()["base"] | {"on": {}}
    report = page(tmp_path, result(points=[plain], fronts=fronts, base=base))
    assert "On other targets" not in [s.title for s in report.sections]


def test_a_damaged_result_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"points\.0\.ratio is 'fast'"):
        page(tmp_path, result(points=[point("x", "pruning", 0.9, "fast")]))
