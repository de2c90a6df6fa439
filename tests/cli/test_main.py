"""The door: help without weight, one line an error, the exit status."""

import errno
import io
import os
import subprocess
import sys

import pytest
from cyclopts import App

from netfit import cli
from netfit.cli import _env, _main
from netfit.cli._app import app

COMMANDS = [
    ("compress",),
    ("cost",),
    ("apply",),
    ("report",),
    ("models",),
    ("data", "list"),
    ("data", "fetch"),
    ("env",),
]
HEAVY = "{'torch', 'numpy', 'optuna', 'sklearn', 'openvino', 'onnx', 'onnxruntime', 'matplotlib', 'pydantic'}"


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("words", [[], ["--help"], ["cost", "--help"], ["compress", "--help"], ["env"]])
def test_help_loads_nothing_heavy(words):
    code = f"import sys; from netfit.cli import main; assert main({words}) == 0; print({HEAVY} & set(sys.modules))"
    done = python(code)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "set()"), done.stderr


def test_help_names_every_command(netfit):
    done = netfit("--help")
    assert done.status == 0 and done.err == ""
    assert all(words[0] in done.out for words in COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_help_and_json(netfit, words):
    done = netfit(*words, "--help")
    assert done.status == 0 and done.err == ""
    assert "--json" in done.out and "[default: False]" not in done.out


@pytest.mark.parametrize("words", COMMANDS)
def test_summaries_agree_with_the_functions(words):
    command = app
    for word in words:
        command = command[word]
    assert isinstance(command, App)
    assert command.help.splitlines()[0].strip(". ")
    assert command.default_command.__doc__


def test_version(netfit):
    assert netfit("--version").out.strip() == cli._app.__version__


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["csot"], 'Did you mean "cost"?'),
        (["cost", "lenet5", "--tragte", "host"], "Did you mean --target?"),
        (["cost"], "MODEL requires an argument"),
        (["cost", "lenet5", "lenet5"], "lenet5"),
        (["cost", "lenet5", "--batch", "0"], "--batch"),
        (["cost", "lenet5", "--batch", "one"], "one"),
        (["compress", "lenet5", "--data", "mnist", "--latency", "1.5"], "--latency"),
        (["compress", "lenet5", "--data", "mnist", "--latency", "0"], "--latency"),
        (["compress", "lenet5", "--data", "mnist", "--latency", "nan"], "--latency"),
        (["compress", "lenet5", "--data", "mnist", "--latency", "0.5", "--sampler", "tep"], 'Did you mean "tpe"?'),
        (["compress", "lenet5", "--latency", "0.5"], "--data"),
    ],
)
def test_words_that_cannot_be_read(netfit, words, says):
    done = netfit(*words)
    assert (done.status, done.out) == (2, "")
    assert says in done.error


def test_json_is_all_there_is(netfit):
    done = netfit("env", "--json")
    assert done.json["packages"]["torch"] and done.err == ""
    assert "packages" in netfit("env").out


@pytest.fixture
def failing(monkeypatch):
    def fail(error):
        def fingerprint():
            raise error

        monkeypatch.setattr("netfit.env.fingerprint", fingerprint)

    return fail


def test_a_bug_is_named_as_one(netfit, failing):
    failing(ZeroDivisionError("two\nlines"))
    done = netfit("env")
    assert done.status == 1
    assert done.error.startswith("bug: ZeroDivisionError: two lines; --debug")


@pytest.mark.parametrize("words", [("--debug", "env"), ("env", "--debug")])
def test_debug_shows_the_traceback(netfit, failing, words):
    failing(ZeroDivisionError("x"))
    done = netfit(*words)
    assert done.status == 1
    assert "Traceback" in done.err and "in fingerprint" in done.err


def test_interrupted(netfit, failing):
    failing(KeyboardInterrupt())
    done = netfit("env")
    assert (done.status, done.error) == (130, "interrupted")


class Stream(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.failure = error

    def write(self, text):
        raise self.failure


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (BrokenPipeError(), 141, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "standard output: No space left on device"),
    ],
)
def test_output_that_goes_nowhere(monkeypatch, capsys, error, status, says):
    monkeypatch.setattr(sys, "stdout", Stream(error))
    assert cli.main(["env"]) == status
    assert says in capsys.readouterr().err


def test_a_reader_that_has_seen_enough():
    inlet, outlet = os.pipe()
    os.close(inlet)
    done = subprocess.run([sys.executable, "-m", "netfit", "env"], stdout=outlet, stderr=subprocess.PIPE, text=True)
    os.close(outlet)
    assert (done.returncode, done.stderr) == (141, "")


def test_characters_the_terminal_cannot_show():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    _main._write(stream, "µs \udcff")
    assert raw.getvalue() == b"\\xb5s \\udcff\n"


def test_what_is_absent_is_said():
    assert _env._plain({"onnx": None}) == "onnx none"
    assert _env._plain({}) == "none" and _env._plain(None) == "unknown"
