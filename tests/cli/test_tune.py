"""``netfit tune``, ``netfit embed`` and ``netfit vta run``."""

import json

import pytest

from netfit.kernels import toolchain

pytestmark = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")
CONV = "conv2d:1x64x14x14,k=64,r=3,padding=1"


def test_tuning_for_the_vta(netfit, tmp_path):
    where = tmp_path / "r"
    words = ("tune", CONV, "--target", "vta", "--trials", "24", "--run", where, "--json")
    done = netfit(*words)
    assert done.status == 0, done.err
    result = json.loads((where / "result.json").read_text())
    assert result["kind"] == "tune" and result["best"] == done.json["best"]
    assert result["why_invalid"]["ok"] > 0 and result["baseline"] and result["map"]["share"]
    page = (where / "report.html").read_text()
    assert f"Tuning {CONV}" in page and "Validity map" in page and page.count("<svg") >= 2
    again = netfit(*words)
    assert again.status == 0 and again.json["measured"] == 0 and again.json["best"] == done.json["best"]


def test_tuning_here_and_exporting(netfit, tmp_path):
    words = ("tune", "depthwise:1x8x8x8,r=3,padding=1", "--trials", "3", "--tuner", "random")
    done = netfit(*words, "--run", tmp_path / "r", "--export", tmp_path / "c")
    assert done.status == 0, done.err
    assert "after" in done.out and (tmp_path / "c" / "op_test.c").is_file()


def test_tuning_a_network(netfit, tmp_path):
    words = (
        "tune",
        "lenet5",
        "--target",
        "vta",
        "--trials",
        "6",
        "--tuner",
        "random",
        "--run",
        tmp_path / "r",
        "--json",
    )
    done = netfit(*words)
    assert done.status == 0, done.err
    rows = done.json["rows"]
    assert rows[0]["operator"].startswith("conv2d") and len(rows) == 5
    assert done.json["after_s"] <= done.json["before_s"] and 0.9 < done.json["covered"] <= 1
    assert "untuned" in (tmp_path / "r" / "report.html").read_text()
    again = netfit(*words)
    assert again.json["rows"][0]["measured"] == 0 and again.json["after_s"] == done.json["after_s"]


def test_embedding_and_running_its_program(netfit, tmp_path):
    pytest.importorskip("ortools", reason="needs netfit[pipeline]")
    program = tmp_path / "p.npz"
    words = ("embed", "1x1x28x28,k=1,r=3,padding=1", "--program", program, "--run", tmp_path / "r", "--json")
    done = netfit(*words)
    assert done.status == 0, done.err
    assert (done.json["reference_calls"], done.json["calls"], done.json["proven"]) == (7056, 49, True)
    assert "proven least" in (tmp_path / "r" / "report.html").read_text()
    ran = netfit("vta", "run", program, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["counters"]["gemm_counter"] == 49
    assert "FINISH" in netfit("vta", "run", program, "--listing").out


def test_cost_on_the_vta(netfit):
    done = netfit("cost", "lenet5", "--target", "vta:4x8", "--json")
    assert done.status == 0, done.err
    assert done.json["totals"]["source"] == "simulated: VTA 4x8, 100 MHz"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tune", "gem:8x8x8"], "no operator 'gem'; did you mean 'gemm'?"),
        (["tune", "pfp-relu:1x1x2x2", "--target", "vta"], "a VTA runs convolutions and products"),
        (["tune", CONV, "--target", "vta:2x2"], "no VTA core '2x2'"),
        (["tune", CONV, "--target", "hots"], "no machine 'hots'; did you mean 'host'?"),
        (["tune", CONV, "--board", "a:1"], "--board and --token-file belong together"),
        (["tune", CONV, "--target", "vta", "--export", "x"], "--export writes kernels of this machine"),
        (["embed", "1x2x3"], "write such as"),
        (["embed", "1x2x8x8,k=4", "--core", "9x9"], "no VTA core '9x9'"),
        (["vta", "run", "nothing.npz"], "nothing.npz is no VTA program"),
    ],
)
def test_wrong_words(netfit, words, message):
    done = netfit(*words)
    assert done.status == 2 and message in done.error
