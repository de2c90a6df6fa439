"""Comparison, proofs, replay on real processes, and the commands."""

import json
import subprocess
import sys

import pytest

from netfit.cli import main
from netfit.errors import ConfigError
from netfit.pipeline import Network, StageCosts, agreement, compare, make, optimize, replay, simulate


def section5(message):
    names = ["1f1b", "gpipe", "zb-h1", "hanayo-2", "chimera", "interleaved", "hanayo-1"]
    network = Network.uniform(4, bytes_per_s=1 / message, name="links")
    costs = StageCosts.uniform(4, boundary_bytes=1.0)
    return compare([make(n, 4, 4) for n in names], costs, [network])


def test_ranks_change_between_the_levels():
    found = section5(0.3)
    rows = {row["schedule"]: row for row in found.rows}
    seconds = {
        "zb-h1": 18,
        "chimera": 18.1,
        "interleaved-2": 20.7,
        "hanayo-1": 22.2,
        "gpipe": 22.8,
        "hanayo-2": 23.4,
        "1f1b": 24,
    }
    assert {name: row["simulated"] for name, row in rows.items()} == pytest.approx(seconds)
    assert [rows[n]["rank_simulated"] for n in seconds] == [1, 2, 3, 4, 5, 6, 7]
    assert [rows[n]["rank_table"] for n in seconds] == [1, 3, 4, 5, 6, 2, 6]
    assert rows["gpipe"]["rank_formula"] == rows["1f1b"]["rank_formula"]
    assert rows["hanayo-2"]["formula"] is None


def test_break_even_is_where_both_take_equally_long():
    found = section5(0.3)
    rows = {row["schedule"]: row for row in found.rows}
    assert rows["zb-h1"]["break_even"] == 0.0 and rows["1f1b"]["break_even"] is None
    at = rows["hanayo-2"]["break_even"]
    costs = StageCosts.uniform(4, boundary_bytes=1.0)
    for factor, ahead in ((1.01, True), (0.99, False)):
        network = Network.uniform(4, bytes_per_s=at * factor)
        one, base = (simulate(make(n, 4, 4), costs, network).makespan for n in ("hanayo-2", "1f1b"))
        assert (one < base) == ahead


def test_the_lead_changes_where_it_says():
    found = section5(0.3)
    flips = found.flips["links"]
    assert [f["from_bytes_per_s"] for f in flips] == sorted(f["from_bytes_per_s"] for f in flips)
    assert found.verdicts()[0].startswith("links: chimera wins below")
    sweep = found.sweep["links"]
    assert len(sweep["bytes_per_s"]) == len(sweep["seconds"]["zb-h1"])


def test_compare_refuses_what_cannot_be_compared():
    with pytest.raises(ConfigError, match="same devices"):
        compare([make("1f1b", 2, 2), make("1f1b", 4, 4)], StageCosts.uniform(2), [Network.uniform(2)])
    with pytest.raises(ConfigError, match="same name"):
        compare([make("1f1b", 2, 2)] * 2, StageCosts.uniform(2), [Network.uniform(2)])
    with pytest.raises(ConfigError, match="at least one"):
        compare([], StageCosts.uniform(2), [])


@pytest.mark.parametrize("limit, units", [(4, 27), (7, 27), (3, 31)])
def test_the_optimum_is_proven(limit, units):
    pytest.importorskip("ortools")
    found = optimize(4, 8, StageCosts.uniform(4), activation_limit=limit, time_limit_s=60)
    run = simulate(found.validate(), StageCosts.uniform(4))
    assert found.proof.optimal and found.proof.bound_s == found.proof.found_s == run.makespan == units
    assert run.activation_peak.max() <= limit


def test_uneven_times_and_latency():
    pytest.importorskip("ortools")
    costs, network = StageCosts.uniform(4, 4, 5, 3), Network.uniform(4, 1.0)
    found = optimize(4, 8, costs, network, activation_limit=4, time_limit_s=60)
    assert found.proof.optimal and simulate(found, costs, network).makespan == 126
    assert simulate(make("1f1b", 4, 8), costs, network).makespan == 148


def test_short_time_gives_a_table_and_a_bound():
    pytest.importorskip("ortools")
    costs = StageCosts.uniform(6, 3.3, 4.1, 2.9)
    found = optimize(6, 24, costs, activation_limit=5, time_limit_s=0.5)
    assert 0 < found.proof.bound_s <= found.proof.found_s
    assert simulate(found.validate(), costs).makespan <= found.proof.found_s * (1 + 1e-3)


@pytest.mark.parametrize(
    "more, said",
    [
        ({"activation_limit": 0.5}, "activation limit 0.5 is too small: one microbatch keeps 1"),
        ({"activation_limit": -1}, "activation_limit is -1"),
        ({"time_limit_s": 0}, "time_limit_s is 0"),
        ({"network": Network.uniform(3)}, "3 devices"),
        ({"costs": StageCosts.uniform(3)}, "3 stages on 2 devices"),
        ({"microbatches": 0}, "0 microbatches"),
    ],
)
def test_limits_that_cannot_be(more, said):
    pytest.importorskip("ortools")
    with pytest.raises(ConfigError) as e:
        optimize(**{"devices": 2, "microbatches": 2, "costs": StageCosts.uniform(2)} | more)
    assert said in str(e.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1f1b", "zb-v"])
def test_real_processes_do_what_the_simulation_says(name):
    schedule, costs = make(name, 2, 4), StageCosts.uniform(2, 0.1, 0.1, 0.1)
    found = agreement(replay(schedule, costs), simulate(schedule, costs))
    assert found.tau == pytest.approx(1.0)
    assert found.ratio >= 0.99  # a busy machine may be later, never earlier


def test_a_replica_cannot_be_replayed():
    with pytest.raises(ConfigError, match="replicas"):
        replay(make("chimera", 4, 4), StageCosts.uniform(4))


def run_json(capsys, *words):
    assert main(["pipeline", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_command_compare_writes_a_report(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["--devices", "4", "--microbatches", "4", "--schedules", "1f1b,zb-h1,hanayo-1,dualpipe"]
    data = run_json(capsys, "compare", *words, "--network", "free,message:0.3", "--run", str(tmp_path / "r"))
    assert {row["schedule"] for row in data["comparisons"][0]["rows"]} == {"1f1b", "zb-h1", "hanayo-1"}
    assert "dualpipe left out" in data["notes"][0]
    page = (tmp_path / "r" / "report.html").read_text()
    assert "who leads as its bandwidth changes" in page and "activations kept" in page and page.count("<svg") >= 7


def test_command_compare_of_a_gpt(capsys):
    words = [
        "--model",
        "gpt-1b",
        "--devices",
        "4",
        "--microbatches",
        "8",
        "--schedules",
        "1f1b,zb-v",
        "--network",
        "h100-ib",
    ]
    data = run_json(capsys, "compare", *words)
    assert data["comparisons"][0]["verdicts"] and "1:2 rule" in data["costs"]


def test_command_simulate_and_export(capsys, tmp_path):
    csv, trace = tmp_path / "t.csv", tmp_path / "t.json"
    assert run_json(capsys, "export", "zb-v", "--torch-csv", str(csv))["stages"] == 8
    data = run_json(
        capsys, "simulate", str(csv), "--network", "message:0.1", "--send", "blocking", "--trace", str(trace)
    )
    assert data["makespan_s"] > 24 and json.loads(trace.read_text())["traceEvents"]
    assert main(["pipeline", "simulate", "1f1b", "--steps", "3"]) == 0
    assert "critical path" in capsys.readouterr().out


def test_command_optimize(capsys):
    pytest.importorskip("ortools")
    data = run_json(capsys, "optimize", "--devices", "4", "--microbatches", "8", "--activations", "3")
    assert data["proof"] == {"status": "optimal", "bound_s": 31.0, "found_s": 31.0}


@pytest.mark.parametrize(
    "words, said",
    [
        (["compare", "--devices", "4", "--microbatches", "4,x"], "--microbatches '4,x'"),
        (["compare", "--devices", "4", "--microbatches", "4", "--schedules", "1f2b"], "did you mean '1f1b'?"),
        (["compare", "--devices", "4", "--microbatches", "4", "--network", "h100"], "no network preset 'h100'"),
        (["compare", "--devices", "4", "--microbatches", "4", "--network", "message:-1"], "must be positive"),
        (["compare", "--devices", "4", "--microbatches", "4", "--times", "1,1"], "--times '1,1'"),
        (["simulate", "interleaved", "--devices", "4", "--microbatches", "6"], "multiple of the 4 devices"),
        (["simulate", "1f1b", "--times", "nan,1,1"], "t_f is nan"),
        (["simulate", "gone.csv"], "cannot read the schedule table"),
        (["export", "chimera", "--torch-csv", "x.csv"], "replicas"),
    ],
)
def test_commands_refuse_bad_input_with_status_2(capsys, words, said):
    assert main(["pipeline", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


INTERRUPTED = """
import os, signal, time
from netfit.pipeline import StageCosts, optimize
signal.signal(signal.SIGINT, signal.default_int_handler)
optimize(4, 8, StageCosts.uniform(4), activation_limit=3, time_limit_s=2)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    raise SystemExit(7)
"""


def test_the_solver_leaves_interrupts_alone():
    """CP-SAT's own SIGINT handler would leave the system's default behind: Ctrl-C would then kill without clean-up."""
    assert subprocess.run([sys.executable, "-c", INTERRUPTED], check=False).returncode == 7
