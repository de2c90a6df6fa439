"""netfit analog sites, walk, harden, env: from the command line to the page."""

import json

import pytest

from netfit.io import read_json

QUICK = ("--data", "digits", "--epochs", 2, "--lr", 0.01, "--samples", 600, "--test-samples", 200)


def test_sites(netfit, net):
    done = netfit("analog", "sites", net, "--in-shape", "1,8,8", "--json")
    assert done.status == 0
    found = [s["site"] for s in done.json["sites"]]
    assert found == ["input", "stem", "relu", "inner", "norm", "add", "relu_1", "adaptive_avg_pool2d", "head"]
    assert "flatten" not in netfit("analog", "sites", "lenet5").out


def test_a_walk_leaves_curves_and_a_page(netfit, tmp_path):
    words = ("analog", "walk", "mlp", *QUICK, "--at", "fc?", "--seeds", 2, "--run", tmp_path / "r")
    done = netfit(*words)
    assert done.status == 0 and "weakest site: fc" in done.out
    result = read_json(tmp_path / "r" / "result.json")
    assert [s["site"] for s in result["sites"]] == ["fc1", "fc2", "fc3"] and result["task"] == "walk"
    page = (tmp_path / "r" / "report.html").read_text()
    assert (
        page.count("<svg") >= 3 and "Which site limits this network" in page and "http://" not in page.split("<svg")[0]
    )
    again = netfit(*words, "--json")
    assert again.status == 0 and again.json["rows"] == result["rows"]


def test_harden_prints_both_baselines_and_env_takes_its_network(netfit, tmp_path):
    run = tmp_path / "h"
    done = netfit("analog", "harden", "mlp", *QUICK, "--std", 1, "--levels", "0.5", "--method", "noisy", "--run", run)
    assert done.status == 0, done.err
    assert "clean training" in done.out and "best constant noise (fixed" in done.out
    page = (run / "report.html").read_text()
    assert "Clean training and every constant level are baselines" in page
    trace = tmp_path / "trace.csv"
    trace.write_text("time,std\n0,0.1\n4,50\n")
    words = ("analog", "env", run / "model", "--data", "digits", "--test-samples", 100, "--steps", 5)
    found = netfit(*words, "--trace", trace, "--run", tmp_path / "e", "--json")
    assert found.status == 0, found.err
    assert found.json["stds"][-1] == 50 and found.json["time_to_failure"] is not None
    assert "failed at step" in (tmp_path / "e" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("walk", "mlp", "--data", "digits", "--levels", "1,x"), "--levels '1,x': allowed are positive numbers"),
        (("walk", "mlp", "--data", "digits", "--at", "fc9", "--epochs", "1"), "pattern 'fc9' matches no site"),
        (("env", "mlp", "--data", "digits"), "mlp comes without weights"),
        (("walk", "mlp", "--data", "digitz"), "unknown data set 'digitz'"),
    ],
)
def test_bad_input(netfit, tmp_path, monkeypatch, words, error):
    monkeypatch.chdir(tmp_path)
    done = netfit("analog", *words)
    assert done.status == 2 and done.error.startswith(error)


def test_a_damaged_result_is_named(netfit, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"kind": "analog", "task": "walk", "noise": "additive_gaussian"}))
    done = netfit("report", tmp_path)
    assert done.status == 2 and "result.json" in done.error and "run the job again" in done.error
