"""``netfit systolic sweep`` and arrays as the target of ``netfit cost``."""

import json

import pytest

from netfit.cli._systolic import span
from netfit.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "values"), [("8:24:8", [8, 16, 24]), ("8:23:8", [8, 16]), ("5:5:1", [5]), ("32,8,8", [8, 32]), ("7", [7])]
)
def test_spans(text, values):
    assert span("--rows", text) == values


@pytest.mark.parametrize(
    "text", ["", "0", "8:", "8:16", "16:8:8", "8:16:0", "a", "8:16,4:8", "-8:8:1", "1:999999999:1"]
)
def test_bad_spans(text):
    with pytest.raises(ConfigError, match=r"--rows .*: allowed"):
        span("--rows", text)


@pytest.fixture
def swept(netfit, tmp_path):
    where = tmp_path / "run"
    done = netfit(
        "systolic", "sweep", "lenet5", "digits-cnn", "--rows", "8:32:8", "--cols", "4:32:4", "--run", where, "--json"
    )
    assert done.status == 0, done.err
    return where, done.json


def test_a_sweep_leaves_numbers_and_a_page(swept):
    where, facts = swept
    result = json.loads((where / "result.json").read_text())
    assert result["kind"] == facts["kind"] == "systolic"
    assert facts["arrays"] == 32 and len(facts["map"]["rows"]) == 4
    assert facts["robust"]["regret"] == max(n["regret"] for n in facts["networks"]) >= 0
    assert len(facts["front"]) >= 1 and {layer["model"] for layer in facts["layers"]} == {"lenet5", "digits-cnn"}
    page = (where / "report.html").read_text()
    assert "Worst regret" in page and "<svg" in page


def test_sweep_db_keeps_every_counter(swept):
    from netfit.search import Sweep

    where, facts = swept
    counters = ("cycles", "energy_j", "buffer_bytes", "dram_bytes", "act_loads", "weight_loads", "result_stores")
    counters += ("accum_writes", "inter_pe", "intra_pe", "utilization")
    store = Sweep(where / "sweep.db", _stored(where))
    columns = store.columns()
    store.close()
    assert {"rows", "cols", "cycles", "energy_j", *(f"lenet5:{c}" for c in counters)} <= set(columns)
    assert len(columns["rows"]) == facts["arrays"]
    best = facts["networks"][0]["fewest_cycles"]
    assert columns["lenet5:cycles"].min() == best["cycles"]


def _stored(where):
    import sqlite3

    with sqlite3.connect(where / "sweep.db") as db:
        found = [name for (name,) in db.execute("SELECT name FROM names ORDER BY position")]
    db.close()
    return found


def test_one_array_and_three_objectives(netfit, tmp_path):
    done = netfit(
        "systolic", "sweep", "lenet5", "--rows", "16", "--cols", "16", "--accum-rows", "64,4096",
        "--array", "dataflow=is,dram_bytes_per_s=1e9", "--objective", "cycles,energy_j,dram_bytes",
        "--run", tmp_path / "r",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "2 arrays" in done.out and "accumulator rows" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "0"], "--rows '0': allowed are positive whole numbers"),
        (["--cols", "20000"], "cols = 20000 of a sweep: allowed are whole numbers from 1 to 16384"),
        (["--rows", "1:16384:1", "--cols", "1:16384:1"], "arrays: allowed are at most 4000000"),
        (["--array", "dataflow=rs"], "dataflow = 'rs' of a systolic array: allowed are 'ws', 'os', 'is'"),
        (["--objective", "cycle"], "did you mean 'cycles'"),
        (["lenet5"], "network 'lenet5' is given twice"),
    ],
)
def test_bad_input_is_one_line_and_status_2(netfit, tmp_path, words, message):
    done = netfit("systolic", "sweep", "lenet5", *words, "--run", tmp_path / "r")
    assert done.status == 2
    assert message in done.error
    assert not (tmp_path / "r").exists()  # the corrected command finds nothing in its way


def test_cost_on_an_array(netfit):
    done = netfit("cost", "lenet5", "--target", "systolic:16x16", "--json")
    assert done.status == 0, done.err
    found = done.json
    assert found["totals"]["source"].startswith("simulated: systolic array 16x16, ws")
    assert sum(row["time_s"] for row in found["operators"]) == pytest.approx(found["totals"]["time_s"])
    assert netfit("cost", "lenet5", "--target", "systolic:0x16").status == 2
