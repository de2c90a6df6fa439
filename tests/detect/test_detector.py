"""The detector: what it finds, that nothing shows of blocks, column order and restarts, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone

from netfit.detect import SPOT, Frame, GroupReducer, HybridDetector, PeerDBSCAN, TimeOrderError, WindowPCA
from netfit.errors import ArtifactError, ConfigError

GROUPS = ["rack", "metric"]
STEADY = 320  # rows before the first fault: the temporal stage has warmed up
SMALL = {"temporal": WindowPCA(window=5, refit=64), "threshold": SPOT(q=1e-3, warmup=100)}


def detector(**changes):
    return HybridDetector(GROUPS, **({"entity": "node", **SMALL} | changes))


def part(frame, rows, columns=None):
    columns = np.arange(len(frame.columns)) if columns is None else np.asarray(columns)
    names = [frame.columns[c] for c in columns]
    return Frame(frame.times[rows], names, frame.values[rows][:, columns])


def summary(alerts):
    return [(a.id, a.kind, a.subject, a.start, a.end, tuple(c.name for c in a.channels[:1])) for a in alerts]


@pytest.mark.parametrize("combine", ["any", "peer", "temporal"])
def test_faults_are_found_at_the_right_node_and_named(faulty, combine):
    alerts = detector(combine=combine).detect(faulty)
    raised = {a.subject: a for a in alerts if a.end is None and a.start >= STEADY}
    zero, climb = raised["n03"], raised["n17"]
    assert zero.kind == ("zero" if combine == "peer" else "temporal") and zero.start == STEADY + 10
    first = zero.channels[0]
    assert first.name == "rack=r0,node=n03,metric=net" and first.observed == 0 and first.expected > 50
    assert climb.channels[0].name == "rack=r1,node=n17,metric=cpu" and climb.start <= STEADY + 45
    assert sum(a.end is None for a in alerts) <= 6
    assert zero.to_json()["channels"][0]["share"] > 0.5


def test_it_works_from_the_first_row_without_training(make_fleet):
    frame = make_fleet(rows=12)
    frame.values[:, 5] = 900
    found = HybridDetector(GROUPS, temporal=None).detect(frame)
    assert [(a.kind, a.start) for a in found] == [("peer", 0.0)]


def test_a_shift_that_lasts_is_told_until_it_is_usual():
    rng = np.random.default_rng(0)
    x = rng.normal(10, 0.1, (2400, 12))
    for at in range(300, 2400, 150):
        x[at : at + 20, 4] += 0.6  # no outlier in any row
    frame = Frame(np.arange(2400.0), [f"rack=r,node=n{i}" for i in range(12)], x)
    whole = HybridDetector("rack", entity="node", temporal=None).detect(frame)
    raised = [a for a in whole if a.end is None]
    assert {(a.kind, a.subject) for a in raised} == {("shift", "n4")} and raised[0].start == 300
    assert 306 <= raised[0].raised <= 314 and 2 <= len(raised) <= 8 and raised[-1].start < 2000
    running = HybridDetector("rack", entity="node", temporal=None)
    cut = [a for rows in np.split(np.arange(2400), [307, 309, 1300]) for a in running.detect(part(frame, rows))]
    assert summary(cut) == summary(whole)


@pytest.mark.parametrize("cuts", [(1, 2, 7), (200, 201, 300), tuple(range(13, 420, 13))])
def test_blocks_and_column_order_do_not_show(faulty, cuts):
    whole = detector().detect(faulty)
    rng = np.random.default_rng(1)
    running, got = detector(), []
    for rows in np.split(np.arange(len(faulty)), cuts):
        got += running.detect(part(faulty, rows, rng.permutation(len(faulty.columns))))
    assert summary(got) == summary(whole)


def test_scores_of_the_peer_stage_are_bitwise_the_same_for_any_blocks(faulty):
    whole = detector(temporal=None)._running().run(faulty, "channel").scores
    engine, parts = detector(temporal=None)._running(), []
    for rows in np.split(np.arange(len(faulty)), [3, 50, 333]):
        parts.append(engine.run(part(faulty, rows), "channel").scores)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_temporal_scores_agree_for_any_blocks(faulty):
    whole = detector()._running().run(faulty, "entity").scores
    engine, parts = detector()._running(), []
    for rows in np.split(np.arange(len(faulty)), [3, 50, 333]):
        parts.append(engine.run(part(faulty, rows), "entity").scores)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_a_restart_changes_nothing(faulty, tmp_path):
    want = detector().detect(faulty)
    first = detector()
    got = first.detect(part(faulty, slice(0, 335)))
    first.save(tmp_path / "state")
    second = HybridDetector.load(tmp_path / "state")
    got += second.detect(part(faulty, slice(335, None)))
    assert summary(got) == summary(want)
    assert second.n_rows_ == len(faulty)
    assert {a.subject for a in second.open_alerts()} >= {"n03"}


def test_a_state_of_another_grouping_is_refused(tmp_path, make_fleet):
    made = detector().fit(make_fleet(rows=20))
    made.save(tmp_path / "state")
    with pytest.raises(ConfigError, match="state of group_by="):
        HybridDetector("rack", entity="node", **SMALL).restore(tmp_path / "state")
    (tmp_path / "state" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError):
        HybridDetector.load(tmp_path / "state")


def test_functions_are_given_again_when_a_state_is_loaded(tmp_path):
    by = {"a": "x", "b": "x", "c": None}.get
    made = HybridDetector(by, temporal=None).fit(Frame(np.arange(3.0), ["a", "b", "c"], np.ones((3, 3))))
    made.save(tmp_path / "s")
    with pytest.raises(ConfigError, match="give it to load"):
        HybridDetector.load(tmp_path / "s")
    assert HybridDetector.load(tmp_path / "s", group_by=by).n_rows_ == 3


def test_channels_come_and_go_without_a_word(make_fleet):
    frame = make_fleet(rows=300)
    running = detector(absent="alert", lifetime=50)
    rng = np.random.default_rng(0)
    alerts = []
    for at in range(0, 300, 10):
        columns = np.sort(rng.permutation(40)[: 30 if at else 40])
        alerts += running.detect(part(frame, slice(at, at + 10), columns))
    assert {a.kind for a in alerts} <= {"absent", "new", "temporal"}
    assert "absent" in {a.kind for a in alerts} and running.n_rows_ == 300
    frame.values[:, 3] = np.nan  # gone and forgotten: its slot is freed when columns change
    running = detector(lifetime=5, temporal=None).partial_fit(make_fleet(rows=10))
    for at in (10, 30):
        running.partial_fit(part(make_fleet(rows=60), slice(at, at + 20), [c for c in range(40) if c != 3 and c != at]))
    running.partial_fit(Frame(np.array([99.0]), ["rack=r0,node=x,metric=cpu"], np.ones((1, 1))))
    assert frame.columns[3] not in dict(running._engine.layout.keys).values()


def test_a_part_of_the_groups_may_vanish(faulty):
    gone = faulty.values.copy()
    gone[STEADY:, [i for i, name in enumerate(faulty.columns) if "metric=net" in name and "rack=r1" in name]] = np.nan
    want = [a for a in detector(combine="peer").detect(faulty) if "rack=r1" not in a.channels[0].name]
    got = detector(combine="peer").detect(Frame(faulty.times, faulty.columns, gone))
    assert summary(a for a in got if "rack=r1" not in a.channels[0].name)[0][1:] == summary(want)[0][1:]
    assert np.isfinite(detector()._running().run(Frame(faulty.times, faulty.columns, gone), "time").scores).all()


def test_an_empty_row_is_taken_and_counted(faulty):
    values = faulty.values.copy()
    values[100] = np.nan
    made = detector()
    scores = made.anomaly_scores(Frame(faulty.times, faulty.columns, values))
    assert np.isnan(scores.values[100, 0]) and np.isfinite(np.delete(scores.values[:, 0], 100)).all()
    assert made.partial_fit(Frame(faulty.times, faulty.columns, values)).n_empty_rows_ == 1


def test_it_is_an_estimator_of_scikit_learn(faulty):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(faulty.values, index=faulty.times, columns=faulty.columns)
    made = clone(detector()).fit(table[:STEADY])
    rest = table[STEADY:]
    scores = made.anomaly_scores(rest, level="entity")
    assert scores.shape == (len(rest), 20) and scores.index.equals(rest.index)
    assert (made.predict(rest) == np.where(made.decision_function(rest) < 0, -1, 1)).all()
    np.testing.assert_array_equal(made.score_samples(rest), made.score_samples(rest))  # it stays as it is
    assert (made.predict(rest)[15:] == -1).all() and made.n_rows_ == STEADY
    np.testing.assert_allclose(made.score_samples(rest), -made.anomaly_scores(rest)["score"])
    assert made.score_one(dict(zip(faulty.columns, faulty.values[-1], strict=True))) >= 0
    assert made.learn_one({"rack=r9,node=new,metric=cpu": 1.0}).n_rows_ == STEADY + 1


def test_wrong_input_is_refused_with_a_word(make_fleet):
    pandas = pytest.importorskip("pandas")
    frame = make_fleet(rows=6)
    table = pandas.DataFrame(frame.values, index=frame.times, columns=frame.columns)
    with pytest.raises(TimeOrderError, match="row 3 is at time 2"):
        detector().fit(table.iloc[[0, 1, 3, 2]].set_index(pandas.Index([0.0, 1.0, 3.0, 2.0])))
    with pytest.raises(TimeOrderError, match="row 1 is at time 0"):
        detector().fit(table.iloc[[0, 0]])
    with pytest.raises(TimeOrderError, match="the last row taken at 5"):
        detector().fit(table).partial_fit(table)
    with pytest.raises(ConfigError, match="is there twice"):
        detector().fit(pandas.concat([table, table], axis=1))
    with pytest.raises(ConfigError, match="column 'rack=r0,node=n00,metric=cpu' holds"):
        detector().fit(table.astype({frame.columns[0]: object}).assign(**{frame.columns[0]: "high"}))
    with pytest.raises(ConfigError, match=r"fits none of 40 columns such as .*; did you mean 'rack'"):
        HybridDetector("rak").fit(table)
    with pytest.raises(ConfigError, match="unknown level 'tim'; did you mean 'time'"):
        detector().anomaly_scores(table, level="tim")
    with pytest.warns(UserWarning, match="there are no peers"):
        HybridDetector(lambda name: name).fit(table)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PeerDBSCAN(eps=0), "eps=0: distances"),
        (lambda: PeerDBSCAN(eps={"a": -1.0}), "eps of 'a'=-1.0"),
        (lambda: PeerDBSCAN(eps="best"), "eps='best'"),
        (lambda: PeerDBSCAN(eps={"a": 1.0}).labels([1.0], ["b"]), "no entry for group 'b'"),
        (lambda: PeerDBSCAN().labels([1.0], ["b"]), "give a number to cluster"),
        (lambda: SPOT(q=1.0), "q=1.0: choose a share"),
        (lambda: SPOT(q=0.1), "not rarer than the tail"),
        (lambda: GroupReducer(stats=("mode",)), "unknown statistic 'mode'"),
        (lambda: WindowPCA(window=0), "window=0"),
        (lambda: HybridDetector("(?P<rack").fit(np.ones((2, 2))), "no regular expression"),
        (lambda: HybridDetector(r"zone=(?P<zone>\w+)").fit(np.ones((2, 2))), "fits none of 2 columns"),
        (lambda: PeerDBSCAN(shift=0.0), "shift=0.0"),
        (lambda: SPOT(memory=20), "memory=20"),
        (lambda: HybridDetector("(rack)").fit(np.ones((2, 2))), "names no group"),
        (lambda: HybridDetector(absent="maybe").fit(np.ones((2, 2))), "absent='maybe'"),
    ],
)
def test_settings_out_of_range_are_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_groups_coupled_by_their_numbers_are_points_in_two_dimensions():
    from sklearn.cluster import DBSCAN

    rng = np.random.default_rng(0)
    racks = rng.integers(0, 6, 60)
    x = rng.normal(size=60) * 4
    got = PeerDBSCAN(eps=1.7).labels(x, [f"rack{r}" for r in racks], couple=1.0)
    assert got.tolist() == DBSCAN(eps=1.7, min_samples=4).fit_predict(np.stack([racks, x], 1)).tolist()


def test_no_torch_is_loaded(tmp_path):
    code = f"""
import sys, numpy as np, netfit.detect
from netfit.detect import Frame, HybridDetector, WindowPCA
x = np.random.default_rng(0).normal(size=(60, 6))
made = HybridDetector(None, temporal=WindowPCA(window=3, refit=16)).fit(x)
made.score_samples(x)
made.save({str(tmp_path / "s")!r})
HybridDetector.load({str(tmp_path / "s")!r}).detect(x)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr[-500:]


def test_windows_alone_tell_what_left_the_pattern_and_where():
    rng = np.random.default_rng(0)
    x = np.sin(np.arange(400)[:, None] / 5 + np.arange(3)) + rng.normal(0, 0.05, (400, 3))
    x[350:, 1] = 0.0
    found = WindowPCA(window=8, refit=100).start(3).rows(x, np.ones(x.shape, bool))
    assert np.isnan(found.score[:32]).all() and found.score[360] > 2 * found.score[300:350].max()
    assert found.share[360].argmax() == 1 and abs(found.expected[345, 1] - x[345, 1]) < 0.3
