"""The pages of tuning and embedding, from results as their commands leave them."""

import json

import pytest

from netfit.errors import ArtifactError
from netfit.report import from_run, render


def tuned(**changes):
    return {
        "kind": "tune", "operation": "gemm:<8>", "target": "host", "tuner": "forest", "points": 6, "attempts": 3,
        "measured": 3, "why_invalid": {"ok": 4, "l1": 2}, "statuses": {"ok": 2, "crash": 1},
        "curve": [[1, 2e-3], [3, 1e-3]], "baseline": [[1, 3e-3], [2, 3e-3]],
        "best": {"knobs": {"mr": 8}, "seconds": 1e-3, "found_at": 3, "noise": 0.5, "default_s": 2e-3},
        "map": {"x": "mr", "y": "nv", "xs": [1, 2], "ys": [1, 2], "share": [[1.0, 0.5], [0.2, 0.0]]},
    } | changes  # fmt: skip


def embedded(**changes):
    cycles = {"accelerator": 1e3, "packing": 10.0, "total": 1010.0}
    return {
        "kind": "embed", "convolution": "1x1<8x8", "core": "1x16", "macs": 100, "calls": 4, "reference_calls": 36,
        "roles": "swapped", "proven": True, "seconds": 0.1, "utilization": 0.5, "reference_utilization": 0.1,
        "axes": [{"name": "n", "extent": 1, "tile": 1, "loops": 1, "lanes": "y"}], "layouts": {"image": "loops <a>"},
        "packed_bytes": 100.0, "cycles": cycles, "reference_cycles": cycles,
    } | changes  # fmt: skip


def page(tmp_path, result):
    (tmp_path / "result.json").write_text(json.dumps(result))
    return render(from_run(tmp_path))


def test_tuning(tmp_path):
    html = page(tmp_path, tuned())
    assert "2.00 times as fast as untuned" in html and "Validity map" in html and "all points" in html
    assert "gemm:&lt;8&gt;" in html and "the machine was busy" in html
    assert "Validity map" not in page(tmp_path, tuned(map=None, baseline=None))


def test_embedding(tmp_path):
    html = page(tmp_path, embedded())
    assert "9 times fewer" in html and "proven least" in html and "loops &lt;a&gt;" in html


def test_a_damaged_result_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="attempts"):
        page(tmp_path, tuned(attempts="many"))
