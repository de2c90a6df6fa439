"""`netfit cost`: counts and times of built-in, saved and the user's own networks."""

import pytest
import torch

from netfit import surgery
from netfit.surgery import Policy
from netfit.targets import CostTable, Target


def test_counts_of_a_known_network(netfit):
    done = netfit("cost", "resnet20", "--json")
    assert done.status == 0 and done.err == ""
    assert done.json["input"] == [1, 3, 32, 32]
    assert done.json["totals"]["macs"] == sum(op["macs"] for op in done.json["operators"]) == 40_813_184
    assert done.json["totals"]["stored_bytes"] == done.json["totals"]["weight_bytes"]


def test_the_table_ends_with_the_totals(netfit):
    lines = netfit("cost", "resnet20").out.splitlines()
    assert lines[0].split()[:4] == ["operator", "kind", "output", "MACs"]
    assert lines[-1].startswith("73 operators") and "40.81 M" in lines[-1]


def test_batch_classes_and_shape(netfit):
    done = netfit("cost", "digits-cnn", "--batch", 2, "--num-classes", 3, "--in-shape", "1,16,16", "--json").json
    assert done["input"] == [2, 1, 16, 16]
    assert done["operators"][-1]["output"] == "2x3"


def test_the_users_own_network(netfit, net):
    done = netfit("cost", net, "--in-shape", "1,8,8", "--json")
    assert done.status == 0
    assert done.err.strip() == "said by the user's file"  # and stdout is JSON all the same
    assert {op["name"]: op["output"] for op in done.json["operators"]}["head"] == "1x7"
    assert [op["name"] for op in done.json["operators"] if op["kind"] == "add"] == ["add"]


def test_a_policy_changes_the_counts(netfit, net, policy):
    file = policy('[policy.inner]\nprune = {sparsity = 0.5}\n[policy."*"]\nquantize = {}\n')
    before, after = (
        netfit("cost", net, "--in-shape", "1,8,8", *more, "--json").json["totals"] for more in ([], ["--policy", file])
    )
    assert after["macs"] < before["macs"] / 2
    assert after["operators"] == before["operators"]  # what simulates int8 is no operator of the network
    assert after["stored_bytes"] < after["weight_bytes"] / 2


class Slow(Target):
    kind = "predicted"

    def cost(self, workload_or_model, *example_inputs, policy=None):
        names = ("stem", "head") if policy is None else ("stem", "cut")
        return CostTable(names, ("conv2d", "linear"), [3e-3, 1e-3], [2e-3, 1e-3], [4e-3, 1e-3], source="by hand, noisy")

    fingerprint = precisions = spec = None


def test_times_of_another_target(netfit, net, policy, monkeypatch):
    monkeypatch.setattr("netfit.targets.parse", lambda text: object.__new__(make()))

    def make():
        return type("Done", (Slow,), {"__abstractmethods__": frozenset()})

    words = ("cost", net, "--in-shape", "1,8,8", "--target", "mine")
    done = netfit(*words, "--json").json
    assert [op["share"] for op in done["operators"]] == [0.75, 0.25]
    assert done["totals"] == {"time_s": 4e-3, "lo_s": 3e-3, "hi_s": 5e-3, "source": "by hand, noisy"}
    text = netfit(*words).out
    assert "75.0 %" in text and text.rstrip().endswith("by hand, noisy")
    file = policy('[policy."*"]\nquantize = {}\n')
    assert netfit(*words, "--policy", file, "--json").json["operators"][1]["name"] == "cut"


def test_measured_on_this_machine(netfit, net, tmp_path, monkeypatch):
    for module in ("openvino", "onnx"):
        pytest.importorskip(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = netfit("cost", net, "--in-shape", "1,8,8", "--target", "host", "--json").json
    assert {"stem", "inner", "head"} <= {op["name"] for op in done["operators"]}
    assert 0 < done["totals"]["lo_s"] <= done["totals"]["time_s"] <= done["totals"]["hi_s"]


def saved(path, spec, **more):
    from netfit import models

    model = models.build(spec, num_classes=5)
    surgery.save(model, path, spec=spec, example_inputs=[torch.zeros(1, 1, 8, 8)], num_classes=5, **more)


def test_a_saved_network_knows_its_shape(netfit, tmp_path):
    saved(tmp_path / "a", "digits-cnn")
    done = netfit("cost", tmp_path / "a", "--json").json
    assert done["input"] == [1, 1, 8, 8] and done["operators"][-1]["output"] == "1x5"
    assert "leave --num-classes away" in netfit("cost", tmp_path / "a", "--num-classes", 5).error


def test_a_saved_network_runs_nobodys_code(netfit, net, tmp_path):
    saved(tmp_path / "a", net, policy=Policy())
    done = netfit("cost", tmp_path / "a")
    assert done.status == 2 and done.error.endswith(f"add --original {net}, if that is still its factory")
    done = netfit("cost", tmp_path / "a", "--original", net, "--json")
    assert done.json["operators"][-1]["output"] == "1x5"
    assert netfit("cost", "lenet5", "--original", net).error == "--original is for saved networks, and lenet5 is none"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["resnet2"], "did you mean 'resnet20'"),
        (["nowhere.py:Net"], "no file nowhere.py"),
        (["no_such_package:Net"], "no_such_package"),
        (["NET"], "give --in-shape"),
        (["NET", "--in-shape", "3,8,8"], "does not run on inputs of shape (1, 3, 8, 8)"),
        (["NET", "--in-shape", "3;8"], "--in-shape '3;8'"),
        (["RAISES", "--in-shape", "1,8,8"], "raised RuntimeError: two lines"),
        (["lenet5", "--in-shape", "1,4,4"], "at least 12x12"),
        (["lenet5", "--num-classes", "0"], "num_classes"),
        (["lenet5", "--seed", "-1"], "seed"),
        (["lenet5", "--target", "hots"], "did you mean 'host'"),
        (["lenet5", "--target", "host:openvin"], "did you mean 'openvino'"),
        (["lenet5", "--policy", "none.toml"], "cannot read policy none.toml"),
    ],
)
def test_bad_input(netfit, net, words, says):
    known = {"NET": net, "RAISES": net.replace(":Net", ":raises")}
    done = netfit("cost", *[known.get(word, word) for word in words])
    assert (done.status, done.out) == (2, "")
    assert says in done.error


def test_a_target_that_is_not_there(netfit, not_installed):
    done = netfit("cost", "lenet5", "--target", "toaster:9")
    assert (done.status, done.out, done.error) == (2, "", "target 'toaster:9': toaster is not installed yet")


def test_a_damaged_network(netfit, tmp_path):
    saved(tmp_path / "a", "digits-cnn")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"x")
    done = netfit("cost", tmp_path / "a")
    assert done.status == 2 and "model.safetensors" in done.error


def test_five_mistakes_are_all_named(netfit, policy):
    file = policy(
        "[policy.conv1]\nquantise = {}\n[policy.conv2]\nquantize = {weight_bit = 8}\n"
        '[policy.fc1]\nquantize = {act_bits = "8"}\n[policy.fc2]\nprune = 0.5\n[policy]\nfc3 = 3\n'
    )
    done = netfit("cost", "lenet5", "--policy", file)
    assert done.status == 2
    for part in (
        "5 mistakes",
        "did you mean 'quantize'",
        "did you mean 'weight_bits'",
        "act_bits",
        '"fc2".prune',
        '"fc3"',
    ):
        assert part in done.error


def test_a_policy_that_names_no_layer(netfit, policy):
    done = netfit("cost", "lenet5", "--policy", policy("[policy.conf1]\nquantize = {}\n"))
    assert done.status == 2 and "'conf1' matches no site: did you mean 'conv1'" in done.error
