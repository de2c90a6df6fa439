"""Metrics agree with scikit-learn, and the control shows what point adjustment is worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from netfit.detect import metrics
from netfit.errors import ConfigError

samples = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(y for y, _ in rows) < len(rows)
)


@given(samples)
def test_areas_are_those_of_scikit_learn(rows):
    y, s = map(np.array, zip(*rows, strict=True))
    assert metrics.average_precision(y, s) == pytest.approx(average_precision_score(y, s))
    assert metrics.auroc(y, s) == pytest.approx(roc_auc_score(y, s))


@given(samples)
def test_without_edges_the_volume_is_the_average_precision(rows):
    y, s = map(np.array, zip(*rows, strict=True))
    assert metrics.vus_pr(y, s, longest=0, steps=1) == pytest.approx(average_precision_score(y, s))
    assert 0 <= metrics.vus_pr(y, s) <= 1 + 1e-12


def test_random_scores_look_excellent_once_adjusted():
    y = np.zeros(5000, int)
    y[1000:1400] = y[3000:3500] = 1
    got = metrics.point_adjusted_f1(y, np.random.default_rng(1).random(5000))
    assert got.random_f1 > 0.9 and got.f1 > 0.9
    assert metrics.average_precision(y, np.random.default_rng(1).random(5000)) < 0.25


def test_adjusting_by_hand():
    y = np.array([0, 1, 1, 0, 1, 0])
    assert metrics.point_adjusted_f1(y, np.array([0, 9, 0, 5, 1, 0])).f1 == pytest.approx(6 / 7)  # 3 of 3, one false


def test_events_and_delays():
    y = np.array([0, 0, 1, 1, 1, 0, 0, 1, 0, 0])
    s = np.array([0, 0, 0, 2, 0, 0, 1, 0, 0, 0.0])
    assert metrics.segments(y) == [(2, 5), (7, 8)]
    assert metrics.event_recall(y, s, at_fpr=0.0) == 0.5
    assert metrics.event_recall(y, s, at_fpr=0.2) == 0.5
    assert metrics.detection_delay(y, s, 1.5) == 1 and np.isnan(metrics.detection_delay(y, s, 9))
    assert metrics.alarm_rate(s, 0.5) == 0.2


def test_missing_scores_count_as_lowest():
    assert metrics.average_precision([0, 1], [np.nan, 0.0]) == 1.0


def test_summary_has_the_control_beside_the_scores():
    y = np.array([0, 0, 0, 1, 1, 0])
    rows = metrics.summary(y, y.astype(float), adjusted=True)
    assert [row["name"] for row in rows] == ["scores", "random control"]
    assert rows[0]["average_precision"] == 1.0 and rows[1]["average_precision"] < 1.0
    assert "point_adjusted_f1" not in metrics.summary(y, y)[0]


@pytest.mark.parametrize(
    ("y", "s", "text"), [([1], [1, 2], "1 labels and 2 scores"), ([0, 0], [1, 2], "no label is 1")]
)
def test_unusable_input_is_refused(y, s, text):
    with pytest.raises(ConfigError, match=text):
        metrics.average_precision(y, s)
