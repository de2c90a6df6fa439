"""``netfit memory``: the numbers of the room, its files, and one line for every mistake."""

import json

from netfit.surgery import Policy


def test_inspect_lists_what_is_saved_and_what_a_codec_leaves(netfit):
    plain = netfit("memory", "inspect", "digits-cnn", "--batch", 16, "--json").json
    assert plain["total"] == sum(plain["by_kind"].values()) > 0
    relu = next(r for r in plain["rows"] if r["kind"] == "relu")
    assert relu["lossless"] == "mask" and relu["shared_with"] == ["conv2"]
    packed = netfit("memory", "inspect", "digits-cnn", "--batch", 16, "--policy", "q4", "--json").json
    assert packed["total"] < 0.3 * plain["total"]
    text = netfit("memory", "inspect", "digits-cnn", "--data", "digits").out
    assert "kept for the backward pass" in text and "batch_norm" in text


def test_measure_says_what_the_peak_is_made_of(netfit):
    done = netfit("memory", "measure", "digits-cnn", "--batch", 16, "--optimizer", "adam")
    assert done.status == 0 and "saved activations" in done.out and "peak:" in done.out
    facts = netfit("memory", "measure", "digits-cnn", "--batch", 16, "--policy", "lossless", "--json").json
    assert facts["held"]["optimizer"] == facts["held"]["parameters"] and facts["peak"] > facts["saved"]


def test_a_plan_leaves_a_policy_and_a_page_and_is_not_made_twice(netfit, tmp_path):
    call = ("memory", "plan", "digits-cnn", "--data", "digits", "--batch", 64, "--run", tmp_path / "run", "--json")
    first = netfit(*call)
    assert first.status == 0, first.err
    facts = first.json
    assert facts["plan"]["after"]["peak"] < facts["plan"]["base"]["peak"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["kind"] == "memory" and result["plan"] == facts["plan"]
    assert "Memory of training digits-cnn" in (tmp_path / "run" / "report.html").read_text()
    policy = Policy.load(tmp_path / "run" / "policy.toml")
    assert {name for name, _ in policy.items()} == set(facts["plan"]["words"])
    assert netfit(*call).json["plan"] == facts["plan"]
    again = netfit(
        "memory", "measure", "digits-cnn", "--batch", 64, "--policy", tmp_path / "run" / "policy.toml", "--json"
    )
    assert abs(again.json["peak"] / facts["plan"]["after"]["peak"] - 1) < 0.05


def test_a_budget_that_cannot_be_met_is_a_failed_job(netfit, tmp_path):
    done = netfit("memory", "plan", "digits-cnn", "--batch", 16, "--budget", "100KB", "--run", tmp_path / "run")
    assert done.status == 1
    assert "below the floor" in done.error and "parameters" in done.error


def test_max_batch(netfit):
    done = netfit("memory", "max-batch", "digits-cnn", "--budget", "3MB", "--batch", 4, "--json")
    assert done.json["batch"] > 8


def test_mistakes_are_one_line(netfit, net):
    for words in (
        ("measure", "digits-cnn", "--policy", "q3"),
        ("measure", "digits-cnn", "--policy", "missing.toml"),
        ("plan", "digits-cnn", "--budget", "lots"),
        ("inspect", net),
        ("max-batch", "digits-cnn", "--budget", "0.5"),
        ("measure", "digits-cnn", "--data", "digits", "--num-classes", 3),
    ):
        done = netfit("memory", *words)
        assert done.status == 2 and done.error, words
