"""``netfit structure``."""

import json

import pytest

from netfit.cli._structure import doubling
from netfit.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "found"), [("64..256", [64, 128, 256]), ("64..100", [64]), ("9", [9]), ("300,100,100", [100, 300])]
)
def test_sizes(text, found):
    assert doubling(text) == found


@pytest.mark.parametrize("text", ["", "a", "0", "8..", "256..64", "8..16..32", "99999", "-4"])
def test_bad_sizes(text):
    with pytest.raises(ConfigError, match="--sizes"):
        doubling(text)


def test_a_survey_leaves_policy_numbers_and_page(netfit, tmp_path):
    where = tmp_path / "run"
    done = netfit(
        "structure", "mlp", "--batch", "4", "--seconds", "0.05", "--min-speedup", "0.01", "--run", where, "--json"
    )
    assert done.status == 0, done.err
    result = json.loads((where / "result.json").read_text())
    assert result["kind"] == "structure" and result["layers"] == done.json["layers"]
    assert all(not layer["keep_dense"] for layer in result["layers"])
    taken = [c for layer in result["layers"] for c in layer["candidates"] if c["chosen"]]
    assert len(taken) == len(result["layers"])
    page = (where / "report.html").read_text()
    assert "Structured layers for mlp" in page and "low rank" in page
    from netfit.surgery import Policy

    assert Policy.load(where / "policy.toml").to_dict() == result["policy"]
    assert bool(result["policy"]) == (result["network"]["speedup"] > 1)


def test_dense_is_kept_where_nothing_can_be_that_fast(netfit):
    done = netfit("structure", "digits-cnn", "--seconds", "0.02", "--min-speedup", "1e9")
    assert done.status == 0, done.err
    assert "keep dense" in done.out and "0 of" in done.out


def test_bench(netfit, tmp_path):
    where = tmp_path / "run"
    done = netfit("structure", "bench", "--sizes", "16,32", "--batch", "4", "--seconds", "0.02", "--run", where)
    assert done.status == 0, done.err
    assert "faster than dense from" in done.out
    assert "Structured layers by size" in (where / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("structure", "mlpp"), "did you mean 'mlp'"),
        (("structure", "bench", "--sizes", "9..3"), "FIRST <= LAST"),
        (("structure", "mlp", "--runtime", "tvm"), "runtime"),
    ],
)
def test_bad_input_ends_with_status_two(netfit, arguments, words):
    done = netfit(*arguments)
    assert done.status == 2 and words in done.err
