"""`netfit bayes tan`, and CSV files."""

import json

import numpy as np
import pytest

from netfit.cli import main
from netfit.data import read_csv
from netfit.errors import ConfigError, DataNotFound
from netfit.report import from_run, render


@pytest.fixture
def weather(tmp_path):
    """Play outside unless it rains or blows hard."""
    rng = np.random.default_rng(0)
    sky, wind = rng.choice(["sun", "cloud", "rain"], 400), rng.normal(3, 2, 400).round(2)
    play = np.where((sky == "rain") | (wind > 4), "no", "yes")
    lines = [f"{s},{w},{p}" for s, w, p in zip(sky, wind, play, strict=True)]
    lines[3] = f"?,{wind[3]},{play[3]}"
    path = tmp_path / "weather.csv"
    path.write_text("sky,wind,play\n" + "\n".join(lines) + "\n")
    return path


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    streams = capsys.readouterr()
    return status, streams.out, streams.err


def test_words_numbers_and_gaps(weather):
    found = read_csv(weather, "play")
    assert found.columns == {"sky": ["cloud", "rain", "sun"], "wind": None}
    assert found.data.classes == ("no", "yes")
    assert np.isnan(found.data.x[3, 0])
    assert np.isnan(found.data.x).sum() == 1


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        ("a,b\n", "b", "holds no rows"),
        ("a,b\n1,2\n1\n", "b", "line 3 has 1 fields, the header has 2"),
        ("a,b\n1,2\n", "c", "no column 'c'"),
        ("a,b\n1,2\n1,?\n", "b", "line 3: b is missing"),
        ("b\n1\n", "b", "no column besides 'b'"),
    ],
)
def test_bad_files_are_named(tmp_path, text, target, says):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_csv(path, target)
    with pytest.raises(DataNotFound, match=r"none\.csv"):
        read_csv(tmp_path / "none.csv", target)


def test_one_classifier(weather, tmp_path, capsys):
    place = tmp_path / "run"
    status, out, _ = run(capsys, "bayes", "tan", weather, "--label", "play", "--epochs", 10, "--run", place)
    assert status == 0
    assert "tan.c" in out
    result = json.loads((place / "result.json").read_text())
    (point,) = result["points"]
    assert point["error"] < 0.1
    assert "tan_predict" in (place / "tan.c").read_text()
    html = render(from_run(place))
    assert "weather.csv" in html
    assert "sky" in html


def test_the_front_goes_on_where_it_was_stopped(weather, tmp_path, capsys, monkeypatch):
    from netfit.cli import _bayes_tan

    monkeypatch.setattr(_bayes_tan, "_PENALTIES", (0.0,))
    monkeypatch.setattr(_bayes_tan, "_WIDTHS", (2, 4))
    monkeypatch.setattr(_bayes_tan, "_HIDDEN", (4,))
    monkeypatch.setattr(_bayes_tan, "_PRECISIONS", ("w4a8",))
    words = ["bayes", "tan", weather, "--label", "play", "--epochs", 3, "--front", "--run", tmp_path / "run"]
    assert run(capsys, *words)[0] == 0
    first = json.loads((tmp_path / "run" / "result.json").read_text())["points"]
    assert {p["family"] for p in first} == {"TAN", "MLP"}
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "stages" / "mlp-4-w4a8.json").unlink()
    assert run(capsys, *words)[0] == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["points"] == first


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{csv}"], "needs --label"),
        (["{csv}", "--label", "plays"], "did you mean 'play'"),
        (["{csv}", "--label", "play", "--bits", "9"], "--bits '9'"),
        (["digits", "--label", "x"], "is for a CSV file"),
        (["lettr"], "unknown data set 'lettr'"),
    ],
)
def test_bad_input_is_one_line(weather, capsys, words, says):
    status, out, err = run(capsys, "bayes", "tan", *(w.format(csv=weather) for w in words))
    assert status == 2
    assert says in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
