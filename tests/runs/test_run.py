"""A run directory: each stage once, one process at a time, and a killed job goes on."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netfit import runs
from netfit.errors import ArtifactError, ConfigError, JobError
from netfit.io import read_json, write_json
from netfit.runs import Run, is_alive, this_process


def start(path, **changes):
    return Run.open(path, "demo", {"bits": 8, "at": Path("a"), "t": (1, 2)} | changes, seed=3)


def state(path):
    return read_json(path / "run.json")


def test_a_run_records_what_it_is_and_how_it_ended(tmp_path):
    with start(tmp_path / "r") as run:
        running = state(run.path)
        assert run.seed == 3
    assert (running["status"], running["owner"]) == ("running", this_process())
    assert running["arguments"] == {"bits": 8, "at": "a", "t": [1, 2]}
    done = state(tmp_path / "r")
    assert (done["status"], done["owner"], done["error"], done["command"]) == ("done", None, None, "demo")
    assert done["fingerprint"]["packages"]["torch"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(1), "failed"),
        (SystemExit(0), "done"),
    ],
)
def test_status_after_an_exception(tmp_path, error, status):
    with pytest.raises(type(error)), start(tmp_path / "r"):
        raise error
    assert state(tmp_path / "r")["status"] == status
    assert state(tmp_path / "r")["owner"] is None
    with start(tmp_path / "r") as run:
        assert state(run.path)["status"] == "running"
    assert state(tmp_path / "r")["error"] is None


def test_a_finished_stage_is_read_back_with_the_same_types(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"pair": (1, 2), "x": 0.1}

    with start(tmp_path / "r") as run:
        first = run.stage("work", work)
    with start(tmp_path / "r") as run:
        assert run.stage("work", work) == first == {"pair": [1, 2], "x": 0.1}
    assert len(calls) == 1


def test_a_stage_that_fails_runs_again(tmp_path):
    with pytest.raises(ZeroDivisionError), start(tmp_path / "r") as run:
        run.stage("work", lambda: 1 / 0)
    with start(tmp_path / "r") as run:
        assert run.stage("work", lambda: 7) == 7
        assert run.stage("none", lambda: None) is None
        assert run.stage("none", lambda: 1 / 0) is None, "None is a result too"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "x" * 101, "a b"])
def test_a_stage_name_that_is_no_file_name(tmp_path, name):
    with pytest.raises(ConfigError, match="stage name"), start(tmp_path / "r") as run:
        run.stage(name, lambda: 1)


def test_a_damaged_stage_or_state_names_its_file(tmp_path):
    with start(tmp_path / "r") as run:
        run.stage("work", lambda: 1)
        (run.path / "stages" / "work.json").write_text("{")
        with pytest.raises(ArtifactError, match=r"work\.json"):
            run.stage("work", lambda: 1)
    for text in ("{", "[]", "{}"):
        (tmp_path / "r" / "run.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"run\.json"):
            start(tmp_path / "r")


def test_the_log_keeps_every_line_with_its_time(tmp_path):
    for _ in range(2):
        with start(tmp_path / "r") as run:
            run.log("one\ntwo")
    lines = (tmp_path / "r" / "log.txt").read_text().splitlines()
    assert len(lines) == 4 and lines[1] == "  two"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 one", lines[0])


def test_the_result_carries_what_it_belongs_to(tmp_path):
    with start(tmp_path / "r") as run:
        run.write_result({"accuracy": 0.5})
        with pytest.raises(ConfigError, match="'seed'"):
            run.write_result({"seed": 1})
    result = read_json(tmp_path / "r" / "result.json")
    assert (result["accuracy"], result["seed"], result["command"]) == (0.5, 3, "demo")
    assert result["versions"]["netfit"] and result["host"]


@pytest.mark.parametrize(
    ("command", "seed", "changes", "message"),
    [
        ("other", 3, {}, "command='demo', not 'other'"),
        ("demo", 4, {}, "seed=3, not 4"),
        ("demo", 3, {"bits": 4}, "bits=8, not 4"),
        ("demo", 3, {"new": 1}, "new=None, not 1"),
    ],
)
def test_a_resumed_run_must_be_the_same_job(tmp_path, command, seed, changes, message):
    with start(tmp_path / "r"):
        pass
    before = (tmp_path / "r" / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=message):
        Run.open(tmp_path / "r", command, {"bits": 8, "at": "a", "t": [1, 2]} | changes, seed)
    assert (tmp_path / "r" / "run.json").read_bytes() == before


def test_another_fingerprint_is_refused_unless_drift_is_allowed(tmp_path):
    with start(tmp_path / "r"):
        pass
    old = state(tmp_path / "r")
    old["fingerprint"]["packages"]["torch"] = "1.0"
    old["fingerprint"]["governor"] = "another"  # may change at any time: no drift
    write_json(tmp_path / "r" / "run.json", old)
    with pytest.raises(ConfigError, match=r"packages \{'torch': '1\.0'\}, now") as caught:
        start(tmp_path / "r")
    assert "numpy" not in str(caught.value), "only what differs is named"
    with Run.open(tmp_path / "r", "demo", old["arguments"], 3, allow_drift=True):
        assert state(tmp_path / "r")["fingerprint"]["packages"]["torch"] != "1.0"


def test_a_folder_with_other_things_is_not_taken(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        start(tmp_path)


def test_a_new_run_gets_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = [Run.open(None, "demo", {}, 0) for _ in range(3)]
    assert len({run.path for run in opened}) == 3
    assert all(run.path.parent == Path("runs") and run.path.name.startswith("demo-") for run in opened)


def test_arguments_that_are_not_json(tmp_path):
    with pytest.raises(ConfigError, match="JSON"):
        Run.open(tmp_path / "r", "demo", {"x": object()}, 0)
    assert not (tmp_path / "r").exists()


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="run directory"):
        start(tmp_path / "file")
    with pytest.raises(ArtifactError, match="run directory"):
        start(tmp_path / "file" / "below")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ValueError, match="the first error") as caught, start(tmp_path / "r"):
        monkeypatch.setattr(os, "fsync", full)
        raise ValueError("the first error")
    assert "No space left" in caught.value.__notes__[0]


def test_two_live_users_are_refused_with_the_name_of_the_first(tmp_path):
    with start(tmp_path / "r"), pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on"):
        start(tmp_path / "r")


def test_owners():
    me = this_process()
    assert is_alive(me)
    assert not is_alive(me | {"started": "0.1"}), "the number was given to another process"
    assert is_alive(me | {"host": "elsewhere"}), "another machine cannot be asked"
    assert not is_alive(me | {"pid": 2**22 + 1})
    assert not any(is_alive(owner) for owner in ({}, {"pid": "x"}, {"host": me["host"], "pid": 1}))


def test_setting_the_clock_does_not_make_a_live_owner_dead(monkeypatch):
    me = this_process()
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("psutil.boot_time", lambda: 0.0)
    assert is_alive(me)


def test_owners_without_proc(monkeypatch):
    monkeypatch.setattr(runs._owner, "_boot", lambda: None)
    assert is_alive(this_process())
    assert not is_alive(this_process() | {"pid": 2**22 + 1})


JOB = """
import os, signal, sys, time
from netfit.runs import Run
with Run.open(sys.argv[1], "demo", {}, 0) as run:
    print(run.stage("one", lambda: {"pid": os.getpid()})["pid"], flush=True)
    if sys.argv[2] == "wait":
        open(os.path.join(sys.argv[1], "stages", ".two.json.0.netfit-tmp"), "w").write("half")
        print("waiting", flush=True)
        time.sleep(60)
    print(run.stage("two", lambda: os.getpid()), flush=True)
"""


def job(path, how):
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(path), how], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def waiting(path):
    process = job(path, "wait")
    first = int(process.stdout.readline())
    assert process.stdout.readline() == "waiting\n"
    return process, first


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    killed, first = waiting(tmp_path / "r")
    with pytest.raises(ConfigError, match=f"process {killed.pid}"):
        Run.open(tmp_path / "r", "demo", {}, 0)
    killed.send_signal(signal.SIGKILL)
    # Not waited for yet: a zombie is as dead as it gets.
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    resumed = job(tmp_path / "r", "go")
    out = resumed.communicate()[0].split()
    assert [int(x) for x in out] == [first, resumed.pid], "stage one was kept, stage two ran now"
    assert state(tmp_path / "r")["status"] == "done"
    assert not list(tmp_path.rglob("*.netfit-tmp"))
    killed.communicate()


def test_control_c_leaves_an_interrupted_run_that_goes_on(tmp_path):
    process, first = waiting(tmp_path / "r")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert (state(tmp_path / "r")["status"], state(tmp_path / "r")["owner"]) == ("interrupted", None)
    with Run.open(tmp_path / "r", "demo", {}, 0) as run:
        assert run.stage("one", lambda: 0) == {"pid": first}


def test_a_second_process_joins_and_waits_for_the_owner(tmp_path):
    owner, first = waiting(tmp_path / "r")
    before = state(tmp_path / "r")
    with Run.open(tmp_path / "r", "demo", {}, 0, join=True) as run:
        assert run.joined
        assert run.stage("one", lambda: pytest.fail("the owner did this")) == {"pid": first}
        owner.kill()
        owner.communicate()
        with pytest.raises(JobError, match="ended before its stage 'two'; the same command takes it over"):
            run.stage("two", lambda: pytest.fail("never done by a helper"))
    assert state(tmp_path / "r") == before, "a helper records nothing"
    with Run.open(tmp_path / "r", "demo", {}, 0, join=True) as run:
        assert not run.joined and run.stage("two", lambda: 2) == 2
    with pytest.raises(ConfigError, match="was started with seed"):
        Run.open(tmp_path / "r", "demo", {}, 1, join=True)


def test_of_many_that_start_together_one_gets_the_directory(tmp_path):
    processes = [job(tmp_path / "r", "wait") for _ in range(3)]
    firsts = [process.stdout.readline() for process in processes]
    assert sum(bool(first) for first in firsts) == 1
    for process in processes:
        process.kill()
        process.communicate()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["owner"]["pid"] in [p.pid for p in processes]
