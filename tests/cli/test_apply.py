"""`netfit apply`, and the small commands beside it."""

import json

import pytest
import torch

from netfit import models, surgery
from netfit.deploy import _sessions as deploy
from netfit.errors import MissingExtraError

POLICY = '[policy.inner]\nprune = {sparsity = 0.5}\n[policy."*"]\nquantize = {}\n'


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx")


def test_the_users_own_network(netfit, net, policy, tmp_path, onnx):
    place = tmp_path / "small"
    words = (
        "apply",
        net,
        policy(POLICY),
        "--in-shape",
        "1,8,8",
        "--num-classes",
        10,
        "--data",
        "digits",
        "--out",
        place,
    )
    done = netfit(*words, "--json")
    assert done.status == 0
    assert done.json["after"]["macs"] < done.json["before"]["macs"] / 2
    assert done.json["after"]["bytes"] < done.json["before"]["bytes"] / 4
    assert done.json["not_exported"] is None
    assert (place / "model.onnx").stat().st_size > 0
    original = models.build(net, num_classes=10)
    loaded = surgery.load(place, model=original)
    assert loaded.model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert all(q.scale.numel() for q in surgery.Quantization.of(loaded.model).activations.values())


def test_1_bit_layers_from_a_policy_file(netfit, policy, tmp_path, onnx):
    place = tmp_path / "bits"
    file = policy('[policy.conv1]\nquantize = {}\n[policy."conv[23]"]\nquantize = {weight_bits = 1, act_bits = 1}\n')
    done = netfit("apply", "digits-cnn", file, "--data", "digits", "--out", place, "--json")
    assert done.status == 0 and done.json["not_exported"] is None
    assert done.json["after"]["bytes"] < done.json["before"]["bytes"] / 16
    marks = deploy.precision_marks(onnx.load(place / "model.onnx"))
    assert marks == {"conv1": "int8", "conv2": "w1a1", "conv3": "w1a1", "fc": "fp32"}
    assert surgery.Quantization.of(surgery.load(place).model).asked() == {
        "conv1": "int8", "conv2": "w1a1", "conv3": "w1a1"
    }  # fmt: skip
    cost = netfit("cost", place, "--target", "host:onnxruntime", "--in-shape", "1,8,8")
    assert cost.status == 2 and "ONNX Runtime has no kernel for conv2 at w1a1" in cost.error


def test_the_same_seed_gives_the_same_file(netfit, policy, tmp_path):
    file = policy('[policy."*"]\nquantize = {}\n')
    found = []
    for i, seed in enumerate([3, 3, 4]):
        netfit("apply", "digits-cnn", file, "--out", tmp_path / str(i), "--seed", seed, "--data", "digits")
        found.append((tmp_path / str(i) / "model.safetensors").read_bytes())
    assert found[0] == found[1] != found[2]


def test_ranges_need_data(netfit, policy, tmp_path):
    done = netfit("apply", "digits-cnn", policy('[policy."*"]\nquantize = {}\n'), "--out", tmp_path / "x")
    assert done.status == 0
    assert done.out.splitlines()[-1].endswith(
        "without model.onnx: it is quantized, and --data must set the ranges first"
    )
    assert netfit("cost", tmp_path / "x").status == 0


def test_named_after_model_and_policy(netfit, policy, tmp_path, monkeypatch, onnx):
    monkeypatch.chdir(tmp_path)
    done = netfit("apply", "digits-cnn", policy('[policy."conv*"]\nprune = {sparsity = 0.5}\n'))
    assert done.out.splitlines()[-1] == "saved in digits-cnn-policy, with model.onnx"
    assert (tmp_path / "digits-cnn-policy" / "model.onnx").is_file()
    again = netfit("apply", "digits-cnn-policy", policy('[policy."*"]\nquantize = {}\n'))
    assert again.status == 2 and "write both into one and apply it to digits-cnn" in again.error


def test_without_the_export_extra(netfit, policy, tmp_path, monkeypatch):
    def absent(*args, **kwargs):
        raise MissingExtraError("onnx is needed here: pip install 'netfit[export]'")

    monkeypatch.setattr("netfit.deploy.export", absent)
    done = netfit(
        "apply", "digits-cnn", policy('[policy."conv*"]\nprune = {sparsity = 0.5}\n'), "--out", tmp_path / "x", "--json"
    )
    assert done.status == 0 and "pip install 'netfit[export]'" in done.json["not_exported"]
    assert not (tmp_path / "x" / "model.onnx").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lenet5", "none.toml"], "cannot read policy none.toml"),
        (["lenet6", "POLICY"], "did you mean 'lenet5'"),
        (["lenet5", "POLICY"], "'inner' matches no site"),
        (["lenet5", "POLICY", "--data", "mnits"], "did you mean 'mnist'"),
        (["NET", "POLICY", "--in-shape", "1,8,8", "--out", "FILE"], "theirs"),
    ],
)
def test_bad_input(netfit, net, policy, tmp_path, words, says):
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    known = {"NET": net, "POLICY": policy(POLICY), "FILE": tmp_path / "theirs"}
    done = netfit("apply", *[known.get(word, word) for word in words])
    assert (done.status, done.out) == (2, "")
    assert says in done.error
    assert (tmp_path / "theirs" / "notes.txt").read_text() == "mine"


def test_models(netfit):
    rows = {row["name"]: row for row in netfit("models", "--json").json["models"]}
    assert sorted(rows) == models.names() and rows["lenet5"]["in_shape"] == [1, 28, 28]
    assert "resnet20" in netfit("models").out


def test_data(netfit, data_or_skip):
    assert netfit("data", "list").out.splitlines() == netfit("data", "list", "--json").json["names"]
    done = netfit("data", "fetch", "digits", "--json").json
    assert done["samples"] == {"train": 1437, "test": 360} and done["shape"] == [1, 8, 8]
    assert "licence" in netfit("data", "fetch", "digits").out
    assert "did you mean 'digits'" in netfit("data", "fetch", "digtis").error


def test_data_that_is_nowhere(netfit, monkeypatch, tmp_path, data_or_skip):
    monkeypatch.setenv("NETFIT_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = netfit("data", "fetch", "fsdd")
    assert done.status == 2 and "MB" in done.error and "get it from" in done.error


def test_report(netfit, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"kind": "demo", "answer": 42}))
    done = netfit("report", tmp_path, "--json")
    assert done.json == {"report": str(tmp_path / "report.html")}
    assert "42" in (tmp_path / "report.html").read_text()
    assert "no run.json" in netfit("report", tmp_path / "nowhere").error


def test_classic_methods_and_trials_by_name(netfit, net, tmp_path):
    half = netfit("apply", "digits-cnn", "magnitude", "--out", tmp_path / "m", "--json").json
    assert 0.2 < half["after"]["macs"] / half["before"]["macs"] < 0.35
    low = netfit("apply", "digits-cnn", "uniform-w2a8", "--out", tmp_path / "q", "--json").json
    assert low["after"]["macs"] == low["before"]["macs"]
    assert 1 / 16 < low["after"]["bytes"] / low["before"]["bytes"] < 1 / 14  # the edges keep eight bits
    run = tmp_path / "run"
    run.mkdir()
    (run / "policies.json").write_text(json.dumps({"7": {"conv2": {"prune": {"keep": 16}}}}))
    seventh = netfit("apply", "digits-cnn", f"{run}#7", "--out", tmp_path / "t", "--json").json
    assert seventh["after"]["macs"] < seventh["before"]["macs"] / 2
    for word, says in [
        (f"{run}#8", "holds no policy of trial 8"),
        ("uniform-w9a8", "weight_bits must be one of"),
        ("learned", "a way of training and no policy: netfit compress --family learned"),
        ("magnitud", "no family and no technique is called 'magnitud'; did you mean 'magnitude'?"),
    ]:
        done = netfit("apply", "digits-cnn", word, "--out", tmp_path / "x")
        assert done.status == 2 and says in done.error
