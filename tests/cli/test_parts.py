"""Reading of options, printing of numbers, and the progress of a job."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit.cli import _output
from netfit.cli._options import shape, words
from netfit.cli._progress import EVERY_S, Lines, Step, progress
from netfit.errors import ConfigError


@given(st.lists(st.integers(1, 10**9 - 1), min_size=1))
def test_shapes_are_read_back(sizes):
    assert shape(",".join(map(str, sizes))) == shape(" x ".join(map(str, sizes))) == tuple(sizes)


@pytest.mark.parametrize("text", ["", "3,", "3,a", "-1,3", "0", "3.5", "²", "9" * 5000])
def test_shapes_that_are_none(text):
    with pytest.raises(ConfigError, match="--in-shape"):
        shape(text)


def test_words_are_known_and_named_once():
    known = ("prune", "quantize")
    assert words("--methods", "quantize", known) == ("quantize",)
    with pytest.raises(ConfigError, match="did you mean 'quantize'"):
        words("--methods", "prune,qantize", known)
    for text in ("prune,prune", "", ","):
        with pytest.raises(ConfigError, match="--methods"):
            words("--methods", text, known)


@given(st.floats(1e-9, 1e14))
def test_si_keeps_four_digits(value):
    number, _, unit = _output.si(value, "s").partition(" ")
    scale = {p: s for s, p in _output._PREFIXES}[unit.removesuffix("s")]
    assert float(number) * scale == pytest.approx(value, rel=6e-4)


def test_table_in_a_pipe_is_as_wide_as_it_must_be():
    text = _output.table(("name", "n"), [("x" * 300, "1"), ("[red]", "22")], ("2 rows", "23"))
    lines = text.splitlines()
    assert lines[0].startswith("name") and "x" * 300 in text and "[red]" in text
    assert lines[-1].startswith("2 rows") and lines[-1].endswith("23")


def found(trials, score, ratio):
    return {"trials": trials, "of": 9, "score": score, "ratio": ratio, "origin": "tpe"}


def test_best_so_far_prefers_the_goal_to_the_score():
    step = Step(goal=0.5)
    texts = [
        step.read("search", found(i, *at))[3] for i, at in enumerate([(0.9, 0.8), (0.8, 0.6), (0.5, 0.4), (0.7, 0.9)])
    ]
    assert texts[0] == "trial 0/9, nearest 90.0 % at 0.800"
    assert texts[1] == "trial 1/9, nearest 80.0 % at 0.600"
    assert texts[2:] == [f"trial {i}/9, best 50.0 % at 0.400" for i in (2, 3)]


EPOCH = {"epoch": 2, "epochs": 3, "step": 5, "steps": 10, "loss": 1.0, "accuracy": 0.5, "lr": 0.1}


def test_steps_of_training():
    assert Step(0.5).read("retrain", EPOCH) == ("retrain", 15, 30, "epoch 2/3, loss 1.000, right 50.0 %")
    assert Step(0.5).read("finalist 1", EPOCH | {"validation": 0.25})[3].endswith("held out 25.0 %")
    assert Step(0.5).read("measure", {})[1:] == (0, None, "")


def test_lines_come_a_few_times_a_minute():
    now, stream = [0.0], io.StringIO()
    lines = Lines(Step(0.5), stream, clock=lambda: now[0])
    lines("measure", {})
    for _ in range(1000):
        now[0] += 0.1
        lines("retrain", EPOCH)
    said = stream.getvalue().splitlines()
    assert said[0] == "measure the original"
    assert len(said) == 2 + int(99.9 // EVERY_S) and said[1].startswith("retrain: epoch 2/3")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress(0.5) as show:
        show("measure", {})
        show("search", found(3, 0.9, 0.4))
        show("search", found(12, 0.8, 0.4))  # seeds may be more than the trials asked for
        show("retrain", EPOCH)
    said = terminal.getvalue()
    assert "trial 9/9, best 90.0 % at 0.400" in said and "epoch 2/3, loss 1.000, right 50.0 %" in said
