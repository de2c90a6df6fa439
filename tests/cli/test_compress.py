"""`netfit compress`: what the command adds to the job, and once the job itself."""

import inspect
import json

import pytest

from netfit.cli._compress import METHODS, compress
from netfit.compress import Settings
from netfit.errors import ConfigError, JobError, MissingExtraError

RESULT = {
    "kind": "compress",
    "model": "digits-cnn",
    "data": "digits",
    "goal": {"latency": 0.5, "max_drop": None},
    "base": {"accuracy": 0.98, "latency_s": 1e-3, "macs": 4e6, "params": 1000, "bytes": 4000},
    "final": {
        "accuracy": 0.97, "accuracy_deployed": 0.96, "latency_s": 4e-4, "macs": 1e6, "params": 500, "bytes": 600,
        "ratio": 0.4, "ratio_lo": 0.39, "ratio_hi": 0.41, "noisy": False, "met": True,
    },
}  # fmt: skip


class Job:
    """Stands for the job: records what it was called with, then does as told."""

    def __init__(self, monkeypatch):
        self.calls, self.result, self.error, self.begun = [], RESULT, None, False
        monkeypatch.setattr("netfit.compress.compress", self)

    def __call__(self, model, data, target, latency, run, settings, progress):
        self.calls.append((model, data, target.runtime, latency, run.seed, settings))
        print("said by a library")
        progress("measure", {})
        progress("search", {"trials": 1, "of": 6, "score": 0.5, "ratio": 0.4, "origin": "uniform"})
        if self.begun:
            run.stage("base", lambda: 1)
        if self.result:
            run.write_result(self.result)
        if self.error:
            raise self.error


@pytest.fixture
def job(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return Job(monkeypatch)


WORDS = ("compress", "digits-cnn", "--data", "digits", "--latency", "0.5")


def test_the_goal_is_met(netfit, job, tmp_path):
    done = netfit(*WORDS, "--run", "r")
    assert done.status == 0
    assert job.calls == [("digits-cnn", "digits", "openvino", 0.5, 0, Settings())]
    assert "98.00 %   96.00 %   -2.00 points" in done.out and "x 0.400" in done.out
    assert "latency goal 0.5: met, interval 0.390 to 0.410" in done.out and "noisy" not in done.out
    assert "r/report.html" in done.out and (tmp_path / "r" / "report.html").is_file()
    assert done.err.splitlines() == [
        "run directory: r", "said by a library", "measure the original", "search: trial 1/6, best 50.0 % at 0.400",
    ]  # fmt: skip
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "done"


def test_json_and_a_directory_of_its_own(netfit, job, tmp_path):
    done = netfit(*WORDS, "--json").json
    assert done["final"] == RESULT["final"] and done["failed"] is None
    assert (tmp_path / done["run"] / "result.json").is_file() and done["run"].startswith("runs/compress-")
    assert done["files"]["report.html"] == f"{done['run']}/report.html"


def test_every_option_reaches_the_job(netfit, job):
    options = (
        "--trials", 7, "--sampler", "random", "--methods", "quantize", "--epochs", 2, "--max-drop", 1.5,
        "--ignore", "conv1", "fc*", "--target", "host:onnxruntime", "--seed", 9, "--allow-drift",
        "--finalists", 4, "--retrained", 2, "--also", "macs", "--also", "bytes", "--family", "magnitude",
        "--store", "s.db", "--ray", "auto", "--train-epochs", 3,
    )  # fmt: skip
    assert netfit(*WORDS, *options).status == 0
    settings = Settings(
        7, "random", ("quantize",), 2, 4, 2, 1.5, ("conv1", "fc*"), "magnitude", ("macs", "bytes"), "s.db", "auto", 3
    )
    assert job.calls == [("digits-cnn", "digits", "onnxruntime", 0.5, 9, settings)]


def test_defaults_are_those_of_the_job():
    given = {p.name: p.default for p in inspect.signature(compress).parameters.values()}
    assert Settings(
        trials=given["trials"], sampler=given["sampler"], methods=tuple(given["methods"].split(",")),
        epochs=given["epochs"], finalists=given["finalists"], retrained=given["retrained"],
        max_drop=given["max_drop"], ignore=given["ignore"], family=given["family"], also=given["also"],
        store=given["store"], ray=given["ray"], train_epochs=given["train_epochs"],
    ) == Settings()  # fmt: skip
    assert Settings().methods == METHODS


def test_a_family_needs_no_latency_and_a_search_does(netfit, job):
    assert netfit(*WORDS[:4], "--family", "uniform-int8").status == 0
    assert job.calls[0][3] == 1.0
    done = netfit(*WORDS[:4])
    assert done.status == 2 and "such as --latency 0.25" in done.error


def test_the_table_of_other_targets(netfit, job):
    score = {"host": {"host": 0.9, "macs": None}, "macs": {"host": 0.7, "macs": 0.8}}
    job.result = RESULT | {"also": {"targets": ["host", "macs"], "score": score}}
    done = netfit(*WORDS, "--run", "r", "--also", "macs")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["host", "90.0", "%", "none"] in rows and ["macs", "70.0", "%", "80.0", "%"] in rows


def test_a_running_job_is_helped(netfit, job, monkeypatch):
    from netfit.runs import Run

    opened = Run.open

    def joined(*args, **kwargs):
        assert kwargs["join"]
        run = opened(*args, **kwargs)
        run.joined = True
        return run

    monkeypatch.setattr(Run, "open", joined)
    job.result = None
    done = netfit(*WORDS, "--run", "r")
    assert done.status == 0 and "the process that owns r goes on" in done.out and "helping the job in r" in done.err


def test_a_missed_goal_keeps_the_result(netfit, job, tmp_path):
    job.result = RESULT | {"final": RESULT["final"] | {"met": False, "noisy": True}}
    job.error = JobError("latency goal 0.5 not met: nearest reachable is 0.6")
    done = netfit(*WORDS, "--run", "r")
    assert (done.status, done.error) == (1, "latency goal 0.5 not met: nearest reachable is 0.6")
    assert "not met" in done.out and "the times are noisy" in done.out
    assert (tmp_path / "r" / "report.html").is_file()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "failed"
    assert "nearest" in netfit(*WORDS, "--run", "r", "--json").json["failed"]


def test_a_failure_without_a_result(netfit, job, tmp_path):
    job.result, job.error = None, JobError("training loss is nan in epoch 1")
    done = netfit(*WORDS, "--run", "r")
    assert (done.status, done.out, done.error) == (1, "", "training loss is nan in epoch 1")
    assert (tmp_path / "r" / "run.json").is_file()


def test_bad_input_leaves_the_directory_free(netfit, job, tmp_path):
    job.result, job.error = None, ConfigError("unknown data set")
    assert netfit(*WORDS, "--run", "r").status == 2
    assert not (tmp_path / "r").exists()
    job.result, job.error = RESULT, None
    assert netfit(*WORDS, "--run", "r", "--trials", 3).status == 0


def test_bad_input_does_not_throw_work_away(netfit, job, tmp_path):
    job.result, job.error, job.begun = None, ConfigError("pattern matches nothing"), True
    assert netfit(*WORDS, "--run", "r").status == 2
    assert (tmp_path / "r" / "stages" / "base.json").is_file() and (tmp_path / "r" / "run.json").is_file()


def test_interrupted_and_gone_on_with(netfit, job, tmp_path):
    job.result, job.error = None, KeyboardInterrupt()
    done = netfit(*WORDS, "--run", "r")
    assert (done.status, done.out) == (130, "")
    assert done.error == "interrupted; go on with the same command and --run r"
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "interrupted"
    other = netfit(*WORDS, "--run", "r", "--trials", 3)
    assert other.status == 2 and "started with trials=60, not 3" in other.error
    job.result, job.error = RESULT, None
    assert netfit(*WORDS, "--run", "r").status == 0


def test_without_the_report_extra(netfit, job, monkeypatch):
    def absent(report, path):
        raise MissingExtraError("matplotlib is needed here: pip install 'netfit[report]'")

    monkeypatch.setattr("netfit.report.write", absent)
    done = netfit(*WORDS, "--run", "r")
    assert done.status == 0 and "report.html" not in done.out
    assert "pip install 'netfit[report]'; then netfit report r" in done.error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "prune,qantize"], "did you mean 'quantize'"),
        (["--target", "hots"], "did you mean 'host'"),
        (["--epochs", "0"], "--epochs"),
        (["--max-drop", "-1"], "--max-drop"),
        (["--run", "full"], "holds 'mine.txt' but no run.json"),
        (["--run", "full/mine.txt"], "cannot make the run directory"),
    ],
)
def test_bad_input(netfit, job, tmp_path, words, says):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    done = netfit(*WORDS, *words)
    assert (done.status, done.out) == (2, "")
    assert says in done.error
    assert not (tmp_path / "runs").exists()


def test_a_target_that_is_not_there(netfit, job, tmp_path, not_installed):
    done = netfit(*WORDS, "--target", "toaster:9")
    assert (done.status, done.out, done.error) == (2, "", "target 'toaster:9': toaster is not installed yet")
    assert job.calls == [] and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["digits-cn", "--data", "digits"], "did you mean 'digits-cnn'"),
        (["digits-cnn", "--data", "digtis"], "did you mean 'digits'"),
        (["RAISES", "--data", "digits"], "raised RuntimeError: two lines"),
        (["NET", "--data", "digits"], "7 values a sample, digits has 10 classes"),
        (["lenet5", "--data", "digits"], "at least 12x12"),
    ],
)
def test_what_the_job_itself_finds(netfit, net, tmp_path, words, says):
    known = {"NET": net.replace(":Net", ":seven"), "RAISES": net.replace(":Net", ":raises")}
    with (tmp_path / "theirs" / "net.py").open("a") as file:
        file.write("\n\ndef seven():\n    return Net(7)\n")
    done = netfit("compress", *[known.get(word, word) for word in words], "--latency", "0.5", "--run", tmp_path / "r")
    assert (done.status, done.out) == (2, "")
    assert says in done.error
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["digits-cnn", "NET"])
def test_a_real_one(netfit, net, tmp_path, monkeypatch, model):
    for module in ("openvino", "onnx", "onnxruntime", "matplotlib"):
        pytest.importorskip(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = net if model == "NET" else model
    words = ("compress", spec, "--data", "digits", "--trials", 3, "--epochs", 1, "--sampler", "random")
    done = netfit(*words, "--latency", "1", "--run", tmp_path / "r", "--json")
    found = done.json
    assert done.status in (0, 1) and found["final"]["met"] == (done.status == 0)
    assert found["base"]["accuracy"] > 0.5
    assert set(found["files"]) == {"policy.toml", "model", "model/model.onnx", "result.json", "report.html"}
    original = ("--original", net) if model == "NET" else ()
    cost = netfit("cost", tmp_path / "r" / "model", *original, "--json").json
    assert cost["totals"]["macs"] == found["final"]["macs"]
    applied = netfit(
        "apply", spec, tmp_path / "r" / "policy.toml", "--data", "digits", "--out", tmp_path / "a", "--json"
    )
    assert applied.json["after"]["macs"] == found["final"]["macs"] and applied.json["not_exported"] is None
    assert netfit("report", tmp_path / "r").status == 0
