"""`netfit tradeoff`: what the command adds to the study."""

import json

import pytest

from netfit.compress import tradeoff as room
from netfit.errors import ConfigError

COST = {"runs": True, "why": None, "time_s": 1e-3, "cycles": 10, "ratio": 0.5}
POINT = {
    "name": "uniform-int8", "group": "quantization", "failed": None, "accuracy": 0.9, "ratio": 0.4, "act_bytes": 100,
    "executed": {"int8": 4}, "on": {"vta": COST, "systolic:32x32": COST | {"runs": False}},
    "costs": {"latency": 0.4, "file": 2000},
}  # fmt: skip
RESULT = {
    "kind": "tradeoff", "model": "digits-cnn", "data": "digits", "target": "host", "also": ["systolic:32x32", "vta"],
    "base": {"accuracy": 0.9, "macs": 1, "weight_bytes": 1, "act_bytes": 1},
    "points": [POINT, {"name": "butterfly", "group": "structured layers", "failed": "no"}],
    "fronts": {"latency": ["uniform-int8"], "file": []}, "findings": [{"about": "verdict", "text": "int8 pays."}],
}  # fmt: skip
WORDS = ("tradeoff", "digits-cnn", "--data", "digits")


@pytest.fixture
def study(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = []

    def tradeoff(model, data, target, run, points, also, settings, progress):
        calls.append((model, data, target.runtime, points, also, settings))
        progress("uniform-int8: search", {"trials": 1, "of": 6, "score": 0.5, "ratio": 0.4, "origin": "x", "goal": 0.3})
        run.write_result(RESULT)
        return RESULT

    monkeypatch.setattr(room, "tradeoff", tradeoff)
    return calls


def test_the_study_is_told_and_kept(netfit, study, tmp_path):
    done = netfit(*WORDS, "--run", "r")
    assert done.status == 0 and study == [("digits-cnn", "digits", "openvino", room.POINTS, room.ALSO, room.SETTINGS)]
    line = next(line for line in done.out.splitlines() if line.startswith("uniform-int8"))
    assert " ".join(line.split()) == "uniform-int8 90.00 % x 0.400 2 kB 100 B (x 0.500) x 0.500 4 int8"
    assert "verdict: int8 pays." in done.out and "butterfly" not in done.out
    assert "nearest 50.0 % at 0.400" in done.err
    assert (tmp_path / "r" / "report.html").is_file()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "done"


def test_every_option_reaches_the_study(netfit, study):
    words = ("--families", "uniform-int8, monarch", "--also", "macs", "--train-epochs", 2, "--epochs", 3, "--trials", 4)
    assert netfit(*WORDS, *words, "--json").json["findings"] == RESULT["findings"]
    assert study[0][3:5] == (("uniform-int8", "monarch"), ("macs",))
    settings = study[0][5]
    assert (settings.train_epochs, settings.epochs, settings.trials) == (2, 3, 4)


def test_bad_input_leaves_the_directory_free(netfit, study, tmp_path, monkeypatch):
    def refuse(*args):
        raise ConfigError("point 'x' is none")

    monkeypatch.setattr(room, "tradeoff", refuse)
    done = netfit(*WORDS, "--run", "r")
    assert (done.status, done.error) == (2, "point 'x' is none") and not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_real_one(netfit, tmp_path, monkeypatch):
    for module in ("openvino", "onnx", "onnxruntime", "matplotlib"):
        pytest.importorskip(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ("--families", "uniform-fp32,uniform-w4a4,magnitude-0.5", "--train-epochs", 2, "--epochs", 1)
    found = netfit(*WORDS, *words, "--run", tmp_path / "r", "--json").json
    low = next(p for p in found["points"] if p["name"] == "uniform-w4a4")
    assert low["asked"]["w4a4"] and "w4a4" not in low["executed"], "no runtime here has kernels for 4 bits"
    assert low["on"]["vta"]["runs"] and low["file_bytes"] > low["weight_bytes"]
    assert netfit("report", tmp_path / "r").status == 0
