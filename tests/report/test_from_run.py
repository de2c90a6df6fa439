"""From a run directory to a page, whatever the result holds."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netfit.errors import ArtifactError, MissingExtraError
from netfit.report import Facts, Figure, Note, Report, Table, from_run, render
from netfit.runs import Run

Result = dict[str, Any]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawings blank: they take nine tenths of a report's time."""
    monkeypatch.setattr("netfit.report.plots.draw", lambda height, paint: "<svg></svg>")


def run_dir(tmp_path: Path, result: Any, status: str = "done") -> Path:
    (tmp_path / "run.json").write_text(json.dumps({"status": status}))
    if result is not None:
        (tmp_path / "result.json").write_text(json.dumps(result))
    return tmp_path


def blocks(report: Report, kind: type) -> list[Any]:
    return [b for s in report.sections for b in s.blocks if isinstance(b, kind)]


def titles(report: Report) -> list[str]:
    return [s.title for s in report.sections]


def warnings_of(report: Report) -> str:
    return " ".join(n.text for n in blocks(report, Note) if n.kind == "warning")


def test_complete_result_fills_every_section(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    report = from_run(run_dir(tmp_path, make_result(60)))
    expected = [
        "Outcome", "Layers", "Why not faster?", "Search", "Beside other tools", "Other targets", "Retraining",
        "Sensitivity", "How it was measured", "Reproduce",
    ]  # fmt: skip
    assert titles(report) == expected
    assert report.title == "resnet20 compressed for cifar10"
    assert report.subtitle == "Runs 4.12 times as fast as the original, 0.44 points of accuracy lost. The goal is met."
    assert len(blocks(report, Figure)) == 7
    assert blocks(report, Facts)[0].values["Latency, original = 1"] == ("0.243", "0.241 to 0.245, goal 0.25")


def test_honesty_list_is_on_the_page(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    html = render(from_run(run_dir(tmp_path, make_result(5))))
    for said in (
        "1.82 ms",
        "openvino 2026.4.1",
        "Threads, batch",
        "interval within ±3 %",
        "search 1000, calibration 512, test 10000",
        "layer1.0.add",
        "fuses this addition",
        "its outputs are the classes",
        "waits for memory",
        "candidates not measured because they were hopeless",
        "The policy found for a target is the best one there for 2 of 2",
    ):
        assert said in html


def test_peers_of_a_benchmark_stand_beside_ours(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    path = run_dir(tmp_path, {k: v for k, v in make_result(5).items() if k != "peers"})
    assert "Beside other tools" not in titles(from_run(path))
    (path / "peers.json").write_text('[{"name": "fastnas", "ratio": 0.306, "accuracy": 0.905}]')
    assert "Beside other tools" in titles(from_run(path)) and "fastnas" in render(from_run(path))


def test_500_trials_fit_two_megabytes(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    html = render(from_run(run_dir(tmp_path, make_result(500))))
    assert len(html.encode()) <= 2_000_000
    assert html.count("<use") > 500  # every trial is a point


def test_equal_results_give_equal_pages(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    path = run_dir(tmp_path, make_result(20))
    assert render(from_run(path)) == render(from_run(path))


@pytest.mark.usefixtures("undrawn")
def test_any_key_may_be_missing(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    full = make_result(8)
    for key in full.keys() - {"kind"}:
        rest = {k: v for k, v in full.items() if k != key}
        assert render(from_run(run_dir(tmp_path, rest)))


def test_kind_alone_is_enough_and_says_what_was_not_recorded(tmp_path: Path) -> None:
    report = from_run(run_dir(tmp_path, {"kind": "compress"}))
    assert titles(report) == ["How it was measured"]
    assert "yardstick, noise flag, images used, substituted layers" in warnings_of(report)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("part", ["base", "final", "yardstick", "layers", "trials", "history", "sensitivity"])
def test_parts_of_parts_may_be_missing_or_null(tmp_path: Path, make_result: Callable[..., Result], part: str) -> None:
    full = make_result(6)
    records = full[part] if isinstance(full[part], list) else [full[part]]
    needed = {"number", "epoch", "kept_fraction", "candidates", "name", "kind", "origin", "group"}
    for key in {k for record in records for k in record} - needed:
        changed = [{**record, key: None} for record in records]
        result = {**full, part: changed if isinstance(full[part], list) else changed[0]}
        assert render(from_run(run_dir(tmp_path, result)))


def test_records_with_hardly_a_value_are_drawn(tmp_path: Path) -> None:
    result = {
        "kind": "compress",
        "layers": [{"name": "a", "channels": 8}, {"time_before_s": 1e-3}, {}],
        "trials": [{"number": 0}, {"number": 1, "ratio": 0.5, "score": 0.5, "feasible": True}],
        "front": [0, 1, 9],
        "chosen": 9,
        "history": [{"epoch": 1}, {"epoch": 2, "loss": 1e400}, {"epoch": 3, "accuracy": 0.5}, {"epoch": 4}],
    }
    text = json.dumps(result).replace("Infinity", "1e400")
    (tmp_path / "result.json").write_text(text)
    report = from_run(tmp_path)
    assert len(blocks(report, Figure)) == 3  # the policy, the times, the trials
    assert render(report)


def test_bad_news_is_said_first(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    result = make_result(5)
    result["final"] |= {"met": False, "noisy": True}
    report = from_run(run_dir(tmp_path, result))
    assert report.subtitle.endswith("The goal is not met.")
    said = warnings_of(report)
    assert "at most 0.25 of the original's" in said and "busy" in said and "1 layer runs at another precision" in said


def test_deep_networks_are_drawn_in_part_and_listed_in_full(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    result = make_result(3)
    layer = result["layers"][0]
    result["layers"] = [{**layer, "name": f"block{i}", "time_before_s": 1e-6 * i} for i in range(200)]
    report = from_run(run_dir(tmp_path, result))
    drawing = next(f for f in blocks(report, Figure) if "Channels" in f.caption)
    assert "the 40 most expensive of 200" in drawing.caption
    assert "block199" in drawing.svg and "block159<" not in drawing.svg
    assert any(len(t.rows) == 200 for t in blocks(report, Table))


def test_without_matplotlib_the_numbers_are_still_there(
    tmp_path: Path, make_result: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str, extra: str) -> None:
        raise MissingExtraError(f"{module} is needed here: pip install 'netfit[{extra}]'")

    monkeypatch.setattr("netfit.report._svg.require", missing)
    report = from_run(run_dir(tmp_path, make_result(5)))
    assert not blocks(report, Figure) and len(blocks(report, Table)) > 5
    assert "netfit[report]" in render(report)


def test_hostile_names_in_a_result_stay_text(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    evil = "<script>alert(1)</script>$\\frac{"
    result = make_result(5)
    result |= {"model": evil, "command": evil, "host": {evil: evil}}
    result["layers"][0]["name"] = evil
    result["trials"][0]["origin"] = evil
    assert "<script" not in render(from_run(run_dir(tmp_path, result)))


def test_unknown_kinds_are_shown_as_tables(tmp_path: Path) -> None:
    result = {
        "kind": "walk_noise",
        "score": 0.123456,
        "ok": True,
        "none": None,
        "command": "netfit analog walk",
        "levels": [{"sigma": 0.1, "accuracy": 0.9}, {"sigma": 0.2, "note": "x" * 999}],
        "sites": ["a", "b"],
        "deep": {"a": {"b": 1}},
    }
    report = from_run(run_dir(tmp_path, result))
    assert report.title == "Walk noise run"
    assert titles(report) == ["Result", "Levels", "Sites", "Deep", "Command"]
    levels = blocks(report, Table)[1]
    assert levels.columns == ("sigma", "accuracy", "note") and levels.align == "rrl"
    assert levels.rows[0] == ("0.1", "0.9", "–") and len(levels.rows[1][2]) < 400
    assert "{&#34;b&#34;: 1}" in render(report)


def test_result_of_a_real_run_shows_its_machine(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    written = {k: v for k, v in make_result(5).items() if k not in {"versions", "host", "seed", "command"}}
    with Run.open(tmp_path / "run", "netfit compress resnet20", {"model": "resnet20"}, 7) as run:
        with pytest.raises(ArtifactError, match="'running'"):
            from_run(tmp_path / "run")
        run.write_result(written)
    tables = {t.note: dict(t.rows) for t in blocks(from_run(tmp_path / "run"), Table) if len(t.columns) == 2}
    assert tables["Seed and versions"]["seed"] == "7" and "torch" in tables["Seed and versions"]
    assert {"cpu", "os", "python"} <= tables["Machine"].keys()


def test_missing_result_names_the_run_and_its_status(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=re.escape(str(tmp_path)) + ".*'interrupted'"):
        from_run(run_dir(tmp_path, None, status="interrupted"))
    with pytest.raises(ArtifactError, match="not a run directory"):
        from_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([1], "holds a list"),
        ({"kind": "compress", "layers": [{"macs_before": "many"}]}, "layers.0.macs_before is 'many'"),
        ({"kind": "compress", "trials": 3, "layers": 4}, "and 1 more"),
    ],
)
def test_broken_results_are_named(tmp_path: Path, result: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=said) as caught:
        from_run(run_dir(tmp_path, result))
    assert "result.json" in str(caught.value) and "\n" not in str(caught.value)


def test_every_page_ends_with_how_it_was_made(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", "job", {"bits": 8, "path": None}, seed=3) as run:
        run.write_result({"kind": "something-new", "value": 1})
    last = from_run(run.path).sections[-1]
    assert last.title == "Reproduce"
    job, arguments, versions, machine = (dict(table.rows) for table in last.blocks if isinstance(table, Table))
    assert (job["job"], job["seed"], arguments) == ("job", "3", {"bits": "8"})
    assert "torch" in versions and "cpu" in machine
