"""Real processes that fail, and the paper's generator."""

import json
from pathlib import Path

import numpy as np
import psutil
import pytest

from netfit.detect import Frame, HybridDetector
from netfit.detect.fleet import CATEGORIES, Fault, Recording, inject, judge, read_recording, record, write_recording
from netfit.errors import ArtifactError, ConfigError


@pytest.fixture(scope="module")
def recording():
    return record(groups=1, nodes=7, seconds=10, faults=("busy", "hang"), churn=0.0, interval_s=0.5, seed=2)


def test_a_fleet_of_processes_is_recorded_with_its_faults(recording, tmp_path):
    assert len(recording.frame) == 20 and {f.kind for f in recording.faults} <= {"busy", "hang"}
    assert len(recording.faults) >= 1 and 0 < recording.labels().mean() < 1
    assert not [p for p in psutil.process_iter(["cmdline"]) if "_worker.py" in str(p.info["cmdline"])]
    pytest.importorskip("pyarrow")
    write_recording(tmp_path / "r.parquet", recording)
    back = read_recording(tmp_path / "r.parquet")
    assert back.faults == recording.faults
    np.testing.assert_array_equal(back.frame.values, recording.frame.values)


def test_faults_of_real_processes_are_found_from_the_first_row(recording):
    alerts = HybridDetector(["group", "metric"], entity="node", absent="alert").detect(recording.frame)
    judged = judge(recording, alerts)
    assert judged.recall == 1.0 and judged.node_first == 1.0


def test_alerts_are_judged_by_what_happened():
    names = tuple(f"group=g,node=n{i},metric=cpu" for i in range(6))
    values = np.ones((60, 6)) + np.random.default_rng(0).normal(0, 0.01, (60, 6))
    values[20:40, 2] = 9
    values[50:, 4] = 9
    made = Recording(Frame(np.arange(60.0), names, values), (Fault("n2", "busy", 20, 40), Fault("n5", "hang", 5, 9)))
    judged = judge(made, HybridDetector("group", entity="node").detect(made.frame))
    (found, missed) = judged.found
    assert found == ("busy", "n2", 3.0, True)  # told in the fourth row
    assert missed[:2] == ("hang", "n5") and np.isnan(missed[2])
    assert [a.subject for a in judged.false_alerts] == ["n4"] and judged.recall == 0.5
    assert judged.false_per_1000_node_seconds == pytest.approx(1000 / 360)


def test_a_table_without_faults_is_no_recording(tmp_path):
    pytest.importorskip("pyarrow")
    from netfit.detect.inputs import write_table

    write_table(tmp_path / "t.parquet", Frame(np.arange(3.0), ("a",), np.ones((3, 1))))
    with pytest.raises(ArtifactError, match="no recording of a fleet"):
        read_recording(tmp_path / "t.parquet")


@pytest.mark.parametrize("changes", [{"faults": ("lek",)}, {"nodes": 1}, {"churn": 2.0}, {"seconds": 0.0}])
def test_a_fleet_that_cannot_be_is_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes)) if "faults" not in changes else "did you mean 'leak'"):
        record(**changes)


def table(rows=2000):
    rng = np.random.default_rng(0)
    names = tuple(f"rack=r{g},node=n{n}" for g in range(6) for n in range(20))
    load = 100 + 10 * np.sin(np.arange(rows)[:, None] / 50 + np.arange(6))
    return Frame(np.arange(rows, dtype=float), names, np.repeat(load, 20, 1) + rng.normal(0, 1, (rows, 120)))


def test_every_category_appears_where_its_label_says():
    frame = table()
    made = inject(frame, "rack", seed=1)
    changed = (made.frame.values != frame.values).any(1)
    assert changed[made.mask > 0].mean() > 0.95 and not changed[made.mask == 0].any()
    for bit in CATEGORIES.values():
        assert (made.mask & bit > 0).any()
    inside = (made.channels.astype(bool) & (made.mask & 64 > 0)[:, None]).any(0)
    assert inside.sum() == 1  # 5 % of one group's twenty channels
    again = inject(frame, "rack", seed=1)
    np.testing.assert_array_equal(again.frame.values, made.frame.values)


def test_contextual_anomalies_stay_in_range_and_global_ones_leave_it():
    frame = table()
    top = frame.values.max(0)
    inside = inject(frame, "rack", categories=["point-contextual", "persistent-contextual"])
    assert (inside.frame.values <= top + 1e-9).all()
    beyond = inject(frame, "rack", categories=["persistent-global"])
    assert (beyond.frame.values.max(0) > top).any()


def test_wrong_wishes_are_refused():
    with pytest.raises(ConfigError, match="unknown category 'trend'"):
        inject(table(), "rack", categories=["trend"])
    with pytest.raises(ConfigError, match="at least 300 rows"):
        inject(table(100), "rack")
    assert json.dumps(CATEGORIES)


@pytest.fixture(scope="module")
def minute():
    """16 processes for 60 s, recorded by `netfit detect record` on two cores."""
    pytest.importorskip("pyarrow")
    return read_recording(Path(__file__).parent / "data" / "fleet.parquet")


def test_every_fault_of_a_recorded_minute_is_found_in_time_and_named_first(minute):
    detector = HybridDetector(["group", "metric"], entity="node", absent="alert")
    judged = judge(minute, detector.detect(minute.frame), within_s=15)
    assert len(judged.found) == 7 and {kind for kind, *_ in judged.found} == {"leak", "busy", "hang", "kill"}
    assert judged.recall == 1.0 and judged.node_first >= 0.95
    assert judged.false_per_1000_node_seconds <= 1
