"""`netfit detect` end to end: fit, run, resume after a kill, judge, cost, inject, record, and a page with cards."""

import json
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from netfit.cli import main
from netfit.detect import Endpoint, Frame, HybridDetector, Service
from netfit.detect.inputs import write_table

GROUPS = "rack&metric"


@pytest.fixture
def files(tmp_path, faulty):
    write_table(tmp_path / "steady.csv", faulty.rows(slice(0, 320)))
    write_table(tmp_path / "stream.csv", faulty.rows(slice(320, None)))
    return tmp_path


@pytest.fixture
def netfit(capsys):
    def call(*words, status=0):
        assert main([str(w) for w in words]) == status, capsys.readouterr().err
        return capsys.readouterr()

    return call


@pytest.fixture
def model(files, netfit):
    netfit("detect", "fit", files / "steady.csv", "-o", files / "model", "--group-by", GROUPS, "--entity", "node")
    return files / "model"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fit_then_run_finds_the_faults_and_draws_them(files, model, netfit):
    told = netfit(
        "detect", "run", model, files / "stream.csv", "--alerts", files / "a.jsonl", "--run", files / "run", "--json"
    )
    facts = json.loads(told.out)
    assert facts["rows"] == 420 and facts["open"] >= 1 and not facts["resumed"]
    alerts = lines(files / "a.jsonl")
    assert {"n03", "n17"} <= {a["subject"] for a in alerts}
    assert all(a["threshold"] == 1 and a["score"] > 1 for a in alerts)
    page = (files / "run" / "report.html").read_text()
    assert "rack=r0,node=n03,metric=net" in page and "<svg" in page and "Alert 1" in page


def test_a_run_goes_on_from_its_state_and_takes_a_file_again(files, model, netfit, faulty):
    whole = netfit("detect", "run", model, files / "stream.csv", "--alerts", files / "whole.jsonl", "--json")
    write_table(files / "first.csv", faulty.rows(slice(320, 352)))
    state = ("--alerts", files / "b.jsonl", "--state", files / "state")
    netfit("detect", "run", model, files / "first.csv", *state)
    with (files / "b.jsonl").open("a") as file:
        file.write('{"id": "written after the last save"}\n')
    again = json.loads(netfit("detect", "run", model, files / "stream.csv", *state, "--json").out)
    assert again["resumed"] and again["rows"] == json.loads(whole.out)["rows"]
    assert lines(files / "b.jsonl") == lines(files / "whole.jsonl")


@pytest.mark.kill
def test_a_killed_run_loses_nothing_and_tells_nothing_twice(files, model, netfit):
    netfit("detect", "run", model, files / "stream.csv", "--alerts", files / "whole.jsonl")
    command = [sys.executable, "-m", "netfit", "detect", "run", str(model), str(files / "stream.csv"), "--speed", "40"]
    command += ["--alerts", str(files / "k.jsonl"), "--state", str(files / "state")]
    for pause in (4.0, 5.0):
        running = subprocess.Popen(command)
        time.sleep(pause)
        running.send_signal(signal.SIGKILL)
        running.wait()
    subprocess.run(command, check=True)
    assert lines(files / "k.jsonl") == lines(files / "whole.jsonl")


def test_a_state_of_another_detector_is_refused(files, model, netfit):
    netfit("detect", "run", model, files / "stream.csv", "--state", files / "state")
    netfit("detect", "fit", files / "steady.csv", "-o", files / "other", "--group-by", "rack")
    told = netfit("detect", "run", files / "other", files / "stream.csv", "--state", files / "state", status=2)
    assert "is a state of" in told.err


def test_scores_are_judged_beside_random_ones(files, netfit):
    rng = np.random.default_rng(0)
    y = np.zeros((400, 1))
    y[100:140] = 1
    write_table(files / "y.csv", Frame(np.arange(400.0), ("label",), y))
    write_table(files / "s.csv", Frame(np.arange(400.0), ("score",), y + rng.normal(0, 0.3, (400, 1))))
    found = json.loads(
        netfit("detect", "eval", files / "s.csv", files / "y.csv", "--adjusted", "--run", files / "r", "--json").out
    )
    good, random = found["metrics"]
    assert good["average_precision"] > 0.9 > random["average_precision"] + 0.4
    assert random["point_adjusted_f1"] > 0.5 and "random control" in (files / "r" / "report.html").read_text()
    assert "not of the same rows" in netfit("detect", "eval", files / "s.csv", files / "stream.csv", status=2).err


def test_cost_says_what_each_stage_takes(files, model, netfit):
    found = json.loads(netfit("detect", "cost", model, "--channels", "1e5", "--json").out)
    peers = found["stages"][0]
    assert peers["stage"] == "peers" and peers["state_bytes"] <= 64 * 100_000
    assert "entities" in netfit("detect", "cost", model).out


def test_inject_writes_a_table_and_its_labels(files, netfit):
    write_table(files / "plain.csv", Frame(np.arange(400.0), ("rack=a,n=1", "rack=a,n=2"), np.ones((400, 2))))
    told = netfit(
        "detect", "inject", files / "plain.csv", files / "i.csv", files / "l.csv", "--group-by", "rack", "--categories",
        "intra-group,collective-trend", "--json",
    )  # fmt: skip
    assert all(n > 0 for n in json.loads(told.out)["rows"].values()) and (files / "i.csv").exists()


def test_record_makes_a_file_of_processes(tmp_path, netfit):
    pytest.importorskip("pyarrow")
    words = ("--groups", 1, "--nodes", 3, "--seconds", 2, "--faults", "hang", "--step", "0.5s", "--churn", 0)
    found = json.loads(netfit("detect", "record", tmp_path / "f.parquet", *words, "--json").out)
    assert found["rows"] == 4 and found["channels"] >= 9 and (tmp_path / "f.parquet").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("fit", "none.csv", "-o", "m"), "none.csv cannot be read"),
        (("fit", "stream.csv", "-o", "m", "--eps", "-1"), "eps=-1.0"),
        (("fit", "stream.csv", "-o", "m", "--eps", "big"), "give a number, or auto"),
        (("fit", "stream.csv", "-o", "m", "--q", "2"), "q=2.0"),
        (("fit", "stream.csv", "-o", "m", "--group-by", "rak"), "did you mean 'rack'"),
        (("run", "nowhere", "stream.csv"), "is not an artifact"),
        (("record", "f.csv"), "a recording is a Parquet file"),
        (("record", "f.parquet", "--faults", "lek"), "did you mean 'leak'"),
        (("prometheus", "nowhere", "--url", "host:9", "--query", "up"), "is no address"),
        (("prometheus", "nowhere", "--url", "http://h:9", "--query", "up", "--step", "soon"), "--step 'soon'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(files, netfit, monkeypatch, words, text):
    monkeypatch.chdir(files)
    told = netfit("detect", *words, status=2)
    assert text in told.err and len(told.err.strip().splitlines()) == 1


def test_numbers_for_prometheus_and_grafana(faulty, tmp_path):
    service = Service(HybridDetector(["rack", "metric"], entity="node"), alerts=tmp_path / "a.jsonl")
    with Endpoint(service, "127.0.0.1:0") as endpoint:
        service.take(faulty)
        text = urllib.request.urlopen(endpoint.url, timeout=10).read().decode()
    assert "netfit_rows_total 420" in text and 'kind="' in text
    assert 'channel="rack=r0,node=n03,metric=net"' in text
    assert (tmp_path / "a.jsonl").read_text()
