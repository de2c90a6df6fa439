"""netfit bayes fit, calibrate, pfp, quantize, evaluate, convert and data make: from the command line to the page."""

import pytest
import torch

from netfit.io import read_artifact, read_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the first test leaves a trained network for the others."""
    return tmp_path_factory.mktemp("bayes")


@pytest.fixture
def trained(netfit, folder):
    if not (folder / "fit" / "model").is_dir():
        words = ("bayes", "fit", "digits-cnn", "--data", "digits", "--pretrain", 1, "--epochs", 1, "--samples", 400)
        done = netfit(*words, "--run", folder / "fit")
        assert done.status == 0, done.err
        assert "accuracy of the means" in done.out and "variational training" in done.err
    return folder / "fit" / "model"


def test_calibrated_rules_stay_with_the_network(netfit, trained):
    done = netfit("bayes", "calibrate", trained, "--data", "digits", "--test-samples", 8, "--draws", 20)
    assert done.status == 0, done.err
    assert "std / sampled" in done.out and "rho=" in done.out
    kept = read_artifact(trained).meta["notes"]["pfp"]
    assert set(kept) - {"logits"} == {"max_pool2d", "adaptive_avg_pool2d"}  # and a factor where these do not suffice
    assert kept["adaptive_avg_pool2d"]["rho"] > 0


def test_a_page_says_whether_it_knows(netfit, trained, tmp_path):
    words = ("bayes", "evaluate", trained, "--in", "digits", "--ood", "digits", "--test-samples", 60, "--draws", 20)
    done = netfit(*words, "--run", tmp_path / "r", "--json")
    assert done.status == 0, done.err
    result = read_json(tmp_path / "r" / "result.json")
    assert result["separation"]["ood_auroc_epistemic"] == pytest.approx(0.5)  # the same images on both sides
    assert 0 < result["scores"]["acc"] < 1 and len(result["unsure"]) == 12
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.count("data:image/png") == 12
    assert "Does it know when it is wrong?" in page and "least sure of" in page
    svi = netfit(*words, "--method", "svi", "--run", tmp_path / "s")
    assert svi.status == 0 and "ood_auroc" in svi.out


def test_backends_are_timed(netfit, trained):
    done = netfit("bayes", "pfp", trained, "--backend", "eager,native", "--json")
    assert done.status == 0, done.err
    assert done.json["backend"] in ("eager", "native")


def test_low_bits_are_trained_packed_and_tabulated(netfit, trained, tmp_path):
    words = ("bayes", "quantize", trained, "--data", "digits", "--epochs", 1, "--samples", 200, "--bits", "4",
             "--octaves", 9)  # fmt: skip
    done = netfit(*words, "--run", tmp_path / "q", "--json")
    assert done.status == 0, done.err
    assert done.json["packed_bytes"] < 8 * 61_000 / 5
    assert (tmp_path / "q" / "packed" / "netfit.json").is_file()
    again = netfit(
        "bayes", "evaluate", tmp_path / "q" / "model", "--in", "digits", "--test-samples", 40, "--run", tmp_path / "e"
    )
    assert again.status == 0, again.err


def test_guides_are_converted(netfit, tmp_path):
    params, constraints = {}, {}
    for name, shape in (("a", (100, 784)), ("b", (100, 100)), ("c", (10, 100))):
        for role, size in (("weight", shape), ("bias", shape[:1])):
            params[f"AutoNormal.locs.{name}.{role}"] = torch.zeros(size)
            params[f"AutoNormal.scales.{name}.{role}"] = torch.full(size, -2.0)
            constraints[f"AutoNormal.scales.{name}.{role}"] = torch.distributions.constraints.positive
    torch.save({"params": params, "constraints": constraints}, tmp_path / "g.pt")
    done = netfit("bayes", "convert", tmp_path / "g.pt", "--model", "mlp", "--out", tmp_path / "net")
    assert done.status == 0, done.err
    assert "89610 weights" in done.out
    wrong = netfit("bayes", "convert", tmp_path / "g.pt", "--model", "lenet5", "--out", tmp_path / "other")
    assert wrong.status == 2 and "names and counts differ" in wrong.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bayes", "pfp", "nowhere"), "no saved network"),
        (("bayes", "evaluate", "net.onnx", "--in", "digits", "--method", "svi"), "needs the folder"),
        (("data", "make", "ambiguous-digit"), "did you mean 'ambiguous-digits'"),
    ],
)
def test_refused(netfit, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = netfit(*words)
    assert done.status == 2 and message in done.error


def test_bits_are_read(netfit, trained):
    done = netfit("bayes", "quantize", trained, "--data", "digits", "--bits", "4,x")
    assert done.status == 2 and "--bits '4,x'" in done.error
