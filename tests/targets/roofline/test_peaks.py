"""Measuring: order and signs, never a speed; what is kept is read back or measured again."""

import json
from dataclasses import replace

import pytest

from netfit import env
from netfit.errors import ArtifactError, TargetUnavailable
from netfit.kernels import toolchain
from netfit.targets.roofline import Peaks, _peaks, measure_peaks

needs_cc = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")


@pytest.fixture
def quick(monkeypatch):
    """A small machine, looked at once."""
    monkeypatch.setattr(env, "caches", lambda: {"l1": 32 << 10, "l2": 512 << 10})
    for name, value in {"ROUNDS": 1, "REPEATS": 5, "STEPS": 500, "TILE_STEPS": 50, "PASS_BYTES": 1 << 17}.items():
        monkeypatch.setattr(_peaks, name, value)


@needs_cc
def test_measured_peaks_are_peaks(quick, tmp_path):
    found = measure_peaks(cache=tmp_path)
    assert list(found.read) == list(found.write) == ["l1", "l2", "dram"]
    rates = list(found.read.values())
    assert rates == sorted(rates, reverse=True) and min(rates) > 0
    assert {"fp32", "bf16", "int8", "bits"} == set(found.ops) and found.ops["fp32"]["vector"] > 0
    assert found.best("bits") >= found.best("int8") >= found.best("fp32") > 0
    assert found.vector_bytes in (16, 32, 64) and found.chain_s > 0
    assert all(value >= 0 for value in found.noise.values()) and len(found.curve) > 5


@needs_cc
def test_peaks_are_kept_until_asked_anew(quick, tmp_path, monkeypatch):
    first = measure_peaks(cache=tmp_path)
    monkeypatch.setattr(_peaks, "_measured", lambda code: replace(first, device="measured again"))
    assert measure_peaks(cache=tmp_path) == first
    assert measure_peaks(cache=tmp_path, fresh=True).device == "measured again"
    assert measure_peaks(cache=tmp_path).device == "measured again"
    kept = next(tmp_path.iterdir())
    kept.write_text(kept.read_text().replace('"vector_bytes": ', '"vector_bytes": -'))
    assert measure_peaks(cache=tmp_path).vector_bytes > 0  # damaged: as if it were absent


def test_json(peaks):
    assert Peaks.from_json(json.loads(json.dumps(peaks.to_json()))) == peaks
    body = peaks.to_json()
    for broken in ({}, {**body, "read": {}}, {**body, "chain_s": 0}, {**body, "more": 1}, {**body, "curve": [1]}):
        with pytest.raises(ArtifactError, match="not the peaks of a machine"):
            Peaks.from_json(broken)


def test_a_precision_without_a_unit_runs_in_a_wider_one(peaks):
    narrow = replace(peaks, ops={"fp32": {"vector": 128e9}, "bf16": {}, "int8": {"vector": 64e9}})
    assert narrow.best("bf16") == narrow.best("int8") == narrow.best("bits") == 128e9


def test_without_a_compiler(monkeypatch, tmp_path):
    _peaks._library.cache_clear()
    monkeypatch.setenv("NETFIT_CC", "none")
    with pytest.raises(TargetUnavailable, match="no C compiler was found: install gcc or clang"):
        measure_peaks(cache=tmp_path)
    _peaks._library.cache_clear()
