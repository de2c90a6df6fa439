"""``netfit roofline`` and the roofline as the target of ``netfit cost``."""

import json

import pytest

from netfit.kernels import toolchain

pytestmark = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")


@pytest.fixture(autouse=True)
def small_machine(monkeypatch, tmp_path):
    """Peaks of a machine that is measured in no time, and kept nowhere else."""
    from netfit import env
    from netfit.targets.roofline import _peaks

    monkeypatch.setattr(env, "caches", lambda: {"l1": 32 << 10, "l2": 512 << 10})
    for name, value in {"ROUNDS": 1, "REPEATS": 5, "STEPS": 500, "TILE_STEPS": 50, "PASS_BYTES": 1 << 17}.items():
        monkeypatch.setattr(_peaks, name, value)
    monkeypatch.setattr("netfit.targets._cache._user_cache", lambda: tmp_path / "cache")


def test_the_roofs_alone(netfit, tmp_path):
    done = netfit("roofline", "--run", tmp_path / "r")
    assert done.status == 0, done.err
    assert "read l1" in done.out and "fp32 vector" in done.out and "explains" not in done.out
    page = (tmp_path / "r" / "report.html").read_text()
    assert "What one core can do" in page and page.count("<svg") == 2


def test_layers_of_a_network(netfit, tmp_path):
    where = tmp_path / "r"
    done = netfit("roofline", "lenet5", "--seconds", "0.02", "--precisions", "fp32,bits", "--run", where, "--json")
    assert done.status == 0, done.err
    result = json.loads((where / "result.json").read_text())
    assert result["kind"] == "roofline" and result["layers"] == done.json["layers"]
    assert {x["implementation"] for x in result["layers"]} == {"netfit", "torch", "naive"}
    assert {x["precision"] for x in result["layers"]} == {"fp32", "bits"}
    first = result["layers"][0]
    assert first["share"] == pytest.approx(first["bounds"][first["bound"]] / first["measured_s"])
    assert {x["name"] for x in result["operators"]} >= {"conv1", "conv2", "fc1"}
    page = (where / "report.html").read_text()
    assert "How near lenet5 runs to the roofs" in page and "Layers beside their bounds" in page


def test_cost_by_the_roofs(netfit):
    done = netfit("cost", "lenet5", "--target", "roofline", "--json")
    assert done.status == 0, done.err
    assert done.json["totals"]["source"].startswith("lower bound: measured peaks of one core")
    assert sum(row["time_s"] for row in done.json["operators"]) == pytest.approx(done.json["totals"]["time_s"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precisions", "fp16"], "--precisions 'fp16': unknown 'fp16'; "),
        (["--implementations", "torch,troch"], "did you mean 'torch'"),
        (["--batch", "2"], "--in-shape and --batch describe a network: name a MODEL"),
        (["--seconds", "0"], "seconds"),
        (["no-such-net"], "no-such-net"),
    ],
)
def test_bad_input_is_one_line_and_status_2(netfit, tmp_path, words, message):
    done = netfit("roofline", *words, "--run", tmp_path / "r")
    assert done.status == 2
    assert message in done.error
    assert not (tmp_path / "r").exists()


def test_without_a_compiler(netfit, tmp_path, monkeypatch):
    from netfit.targets.roofline import _peaks

    _peaks._library.cache_clear()
    monkeypatch.setenv("NETFIT_CC", "none")
    done = netfit("roofline", "--run", tmp_path / "r")
    assert done.status == 2 and "no C compiler was found: install gcc or clang" in done.error
    _peaks._library.cache_clear()
