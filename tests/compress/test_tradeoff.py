"""The trade-off study: points are jobs, training is the same for all, findings follow from the rows."""

import json

import pytest

from netfit.compress import Settings
from netfit.compress import tradeoff as room
from netfit.compress._evaluate import Evaluator
from netfit.compress._findings import findings
from netfit.compress.tradeoff import tradeoff
from netfit.errors import ConfigError, JobError
from netfit.runs import Run

from .toys import BitOps

POINTS = ("uniform-fp32", "uniform-int8", "uniform-bf16", "magnitude-0.5+int8", "low_rank", "mixed-0.2")
SETTINGS = Settings(trials=5, finalists=1, epochs=1, train_epochs=1, sampler="uniform")


def study(place, points=POINTS, settings=SETTINGS, also=("macs", "systolic:16x16"), show=None):
    with Run.open(place, "tradeoff", {"points": list(points)}, 0) as run:
        return tradeoff("digits-cnn", "digits", BitOps(), run, points, also, settings, show)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place, stages = tmp_path_factory.mktemp("study") / "r", []
    result = study(place, show=lambda stage, facts: stages.append(stage))
    return place, result, stages


def rows(result):
    return {row["name"]: row for row in result["points"]}


def test_every_point_is_a_complete_job(done):
    place, result, _ = done
    assert [row["name"] for row in result["points"]] == list(POINTS)
    for row in result["points"]:
        if not row["failed"]:
            job = json.loads((place / row["run"] / "result.json").read_text())
            assert job["kind"] == "compress" and job["final"]["accuracy"] == row["accuracy"]
            assert len(job["history"]) == 1 and (place / row["run"] / "model").is_dir()
            assert job["base"]["accuracy"] == result["base"]["accuracy"]
    assert json.loads((place / "result.json").read_text())["points"] == result["points"]


def test_training_comes_first_and_is_labels_alone(done):
    _, _, stages = done
    kinds = [stage.startswith("measure ") for stage in stages]
    assert kinds.index(True) > max(i for i, s in enumerate(stages) if s.endswith(": retrain"))
    assert stages.count("train") and not any(s.endswith(": train") for s in stages)


def test_costs_and_fronts(done):
    _, result, _ = done
    found = rows(result)
    assert found["uniform-int8"]["ratio"] == pytest.approx(0.25, rel=0.05)
    assert found["magnitude-0.5+int8"]["ratio"] < 0.1 and found["mixed-0.2"]["ratio"] <= 0.2
    assert found["uniform-int8"]["weight_bytes"] < 0.3 * found["uniform-fp32"]["weight_bytes"]
    assert found["uniform-int8"]["act_bytes"] < 0.3 * found["uniform-fp32"]["act_bytes"]
    for axis, front in result["fronts"].items():
        points = {
            n: (r["costs"][axis], r["accuracy"]) for n, r in found.items() if not r["failed"] and r["costs"][axis]
        }
        for name in front:
            x, y = points[name]
            assert not any((a < x and b >= y) or (a <= x and b > y) for a, b in points.values())


def test_what_cannot_be_done_or_run_is_said(done):
    _, result, _ = done
    found = rows(result)
    assert "does not run conv2d layers such as 'conv1' at bf16" in found["uniform-bf16"]["failed"]
    array = {name: row["on"]["systolic:16x16"] for name, row in found.items() if not row["failed"]}
    assert array["uniform-int8"]["runs"] and array["uniform-int8"]["ratio"] == 1
    assert not array["low_rank"]["runs"] and array["low_rank"]["cycles"] and "runs int8" in array["low_rank"]["why"]
    assert found["low_rank"]["costs"]["systolic:16x16"] is None
    assert not found["uniform-int8"]["on"]["macs"]["runs"]
    said = {f["text"] for f in result["findings"] if f["about"] == "not possible"}
    assert len(said) == 1 and next(iter(said)).startswith("uniform-bf16: ")


def test_a_finished_study_is_read_back(done, monkeypatch):
    place, result, _ = done
    monkeypatch.setattr(Evaluator, "build", lambda *a: pytest.fail("a finished point was built again"))
    again = study(place)
    assert again == result


def test_an_interrupted_study_goes_on(tmp_path):
    def stop(stage, facts):
        if stage == "measure uniform-int8":
            raise KeyboardInterrupt

    names = ("uniform-fp32", "uniform-int8", "mixed-0.001")
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "r", names, also=(), show=stop)
    stages = []
    result = study(tmp_path / "r", names, also=(), show=lambda stage, facts: stages.append(stage))
    assert not any("train" in stage for stage in stages) and len(result["fronts"]["latency"]) >= 1
    assert rows(result)["mixed-0.001"]["failed"].startswith(
        "a latency of 0.001 is not reachable here, the nearest is 0.0"
    )


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (["magnitude"], "needs the share of the channels it removes, such as magnitude-0.5"),
        (["magnitude-2"], "'2' is no share of the channels"),
        (["mixed-x"], "'x' is no part of the latency, such as mixed-0.25"),
        (["uniform-int9"], "unknown precision 'int9'"),
        (["lernd-0.5"], "no family and no technique is called"),
        (["uniform-int8", "uniform-int8"], "named once each"),
        ([], "at least one"),
    ],
)
def test_bad_points_are_refused_before_any_training(tmp_path, points, says):
    with pytest.raises(ConfigError, match=says):
        study(tmp_path / "r", points)
    assert not (tmp_path / "r" / "stages").exists()


def test_a_study_without_any_result_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(room.Job, "found", lambda *a: (_ for _ in ()).throw(JobError("nothing works")))
    with pytest.raises(JobError, match="no point could be measured; uniform-fp32: nothing works"):
        study(tmp_path / "r", ["uniform-fp32"], also=())


def row(name, group, accuracy, ratio, **more):
    facts = {"file_bytes": 1000, "macs": 1000 * ratio, "asked": {}, "executed": {}, "failed": None}
    facts |= {"ratio_lo": 0.98 * ratio, "ratio_hi": 1.02 * ratio}
    facts |= {"act_bytes": 8000 * ratio, "weight_bytes": 4000, "added_bytes": 2e6 * ratio}
    facts |= {"name": name, "group": group, "accuracy": accuracy, "ratio": ratio} | more
    return facts | {"costs": {"latency": ratio, "file": facts["file_bytes"]}, "on": {}}


def said(rows, fronts=None):
    found = findings(rows, fronts or {"latency": [], "file": []}, 0.9, "host")
    return {f["about"]: "\n".join(g["text"] for g in found if g["about"] == f["about"]) for f in found}


def test_sentences_follow_the_rows():
    full, eight = row("uniform-fp32", "quantization", 0.92, 1.0), row("uniform-int8", "quantization", 0.915, 0.4)
    low = row("uniform-w2a2", "quantization", 0.8, 0.41, asked={"w2a2": 5, "int8": 2}, executed={"int8": 7})
    text = said([full, eight, low])
    assert "90.00 %" in text["reference"] and "92.00 % after" in text["reference"]
    assert text["quantization"].startswith("Quantization alone is never faster than uniform-int8 (0.400 of the latency")
    assert "5 places and all run as int8: no faster than int8 (1.02 of its latency" in text["quantization"]
    assert (
        "live activations of 3 kB instead of 8 kB (uniform-int8); weights at the bits asked for of 4 kB"
        in text["memory"]
    )
    assert "adds 1 MB (uniform-int8) to 2 MB (uniform-fp32)" in text["memory"]
    one = row("uniform-w1a1", "quantization", 0.9, 0.3, asked={"w1a1": 5, "int8": 2}, executed={"w1a1": 5, "int8": 2})
    text = said([full, eight, one])
    assert "never faster than uniform-w1a1" in text["quantization"]
    assert "within one point of accuracy, than uniform-int8" in text["quantization"]
    assert "executes 5 so, the others as int8: faster than int8" in text["quantization"]


def test_sentences_on_pruning_structure_and_search():
    full, eight = row("uniform-fp32", "quantization", 0.92, 1.0), row("uniform-int8", "quantization", 0.92, 0.4)
    pruned = row("magnitude-0.5", "pruning", 0.9, 0.5)
    learned = row("learned-0.5", "pruning", 0.91, 0.6)
    layers = row("monarch", "structured", 0.85, 1.2, macs=100.0)
    mixed = row("mixed-0.25", "mixed", 0.91, 0.2)
    text = said([full, eight, pruned, learned, layers, mixed], {"latency": ["mixed-0.25"], "file": []})
    assert "uniform-int8 (0.400 of the latency, 0.00 points lost) beats it in both" in text["pruning"]
    assert (
        "learned-0.5 (0.600 of the latency, 1.00 points lost) keeps more accuracy than magnitude-0.5" in text["pruning"]
    )
    assert "monarch takes 0.10 of the multiply-accumulates and 1.20 of the fp32 latency" in text["structured layers"]
    assert "and nothing is gained" in text["structured layers"]
    assert "no classic method is as fast. It is on the front" in text["mixed policies"]
    assert "latency on host: mixed-0.25" in text["verdict"]
    missed = {"name": "mixed-0.1", "group": "mixed", "failed": "the nearest is 0.15"}
    assert said([full, missed])["not possible"] == "mixed-0.1: the nearest is 0.15."
