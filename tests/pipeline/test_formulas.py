"""The tables do what the closed forms say, to rounding (full grid: benchmarks/pipeline.py)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.pipeline import StageCosts, families, make, simulate

TIMES = [(1.0, 1.0, 1.0), (3.0, 4.0, 2.0), (1.3, 2.1, 0.7)]
SIZES = [(2, 1), (2, 7), (3, 3), (4, 2), (4, 8), (5, 10), (7, 64), (8, 16), (16, 5), (16, 16)]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("p, m", SIZES)
@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb-h1"])
def test_makespan_and_peak_of_plain_schedules_are_exact(name, p, m, times):
    schedule, costs = make(name, p, m).validate(), StageCosts.uniform(p, *times)
    closed, run = schedule.formula(costs), simulate(schedule, costs)
    assert closed.exact
    assert run.makespan == pytest.approx(closed.seconds, rel=1e-9)
    assert run.bubble == pytest.approx(closed.bubble, abs=1e-9)
    assert run.activation_peak.max() == pytest.approx(closed.peak, abs=1e-9)


@pytest.mark.parametrize("p, m", [(2, 4), (3, 6), (4, 4), (8, 16), (16, 16)])
def test_activations_of_every_device(p, m):
    peaks = {name: simulate(make(name, p, m), StageCosts.uniform(p)).activation_peak for name in ("gpipe", "1f1b")}
    assert peaks["gpipe"].tolist() == [m] * p
    assert peaks["1f1b"].tolist() == [min(m, p - d) for d in range(p)]
    for v in (2, 3, 4):
        found = simulate(make("interleaved", p, m, chunks=v), StageCosts.uniform(p)).activation_peak
        expected = [min((2 * (p - 1 - d) + (v - 1) * p + 1) / v, m) for d in range(p)]
        np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("v", [1, 2, 3, 4])
@pytest.mark.parametrize("p, m", [(2, 2), (3, 9), (4, 8), (8, 8), (16, 32)])
def test_interleaved_is_exact(p, m, v, times):
    schedule, costs = make("interleaved", p, m, chunks=v).validate(), StageCosts.uniform(p, *times)
    closed = schedule.formula(costs)
    assert closed.exact
    assert simulate(schedule, costs).makespan == pytest.approx((m + (p - 1) / v) * sum(times), rel=1e-9)
    assert simulate(schedule, costs).makespan == pytest.approx(closed.seconds, rel=1e-9)


@pytest.mark.parametrize("ratio", [1, 1.25, 1.5, 2, 3])
@pytest.mark.parametrize("p", [2, 4, 6, 8, 16])
def test_chimera_is_exact_for_one_microbatch_per_device(p, ratio):
    costs = StageCosts.uniform(p, 1.0, ratio / 2, ratio / 2)
    run = simulate(make("chimera", p, p).validate(), costs)
    assert run.makespan == pytest.approx(p + (2 * p - 2) * ratio, rel=1e-9)
    assert run.activation_peak.min() >= p / 2 and run.activation_peak.max() <= p


@pytest.mark.parametrize("p, m", [(4, 8), (4, 16), (8, 32)])
def test_chimera_fills_slots_of_equal_length(p, m):
    assert simulate(make("chimera", p, m), StageCosts.uniform(p, 1.0, 0.5, 0.5)).makespan == 2 * m + p - 2


def test_the_formula_of_chimera_assumes_equal_slots_and_the_table_shows_it():
    schedule, costs = make("chimera", 8, 32), StageCosts.uniform(8)
    closed, run = schedule.formula(costs), simulate(schedule, costs)
    assert not closed.exact and closed.bubble == pytest.approx(6 / 70)
    assert run.makespan == 125 > simulate(make("1f1b", 8, 32), costs).makespan == 117
    assert run.activation_peak.max() == 8


@pytest.mark.parametrize(
    "name, p, makespan", [("hanayo-1", 4, 18), ("hanayo-2", 4, 15.25), ("hanayo-1", 8, 38), ("hanayo-2", 8, 31.5)]
)
def test_hanayo(name, p, makespan):
    run = simulate(make(name, p, p).validate(), StageCosts.uniform(p))
    assert run.makespan == makespan
    assert run.activation_peak.max() == pytest.approx(p)


@pytest.mark.parametrize("p, mirrored, shifted", [(4, 16, 15), (8, 36, 37)])
def test_the_shifted_placement_gains_only_in_shallow_pipelines(p, mirrored, shifted):
    found = [simulate(make(n, p, p).validate(), StageCosts.uniform(p)) for n in ("chimera", "chimera-shift")]
    assert [run.makespan for run in found] == [mirrored, shifted]
    assert found[1].activation_peak.max() == found[0].activation_peak.max()


@pytest.mark.parametrize("p", [2, 4, 8])
def test_zero_bubble_schedules_are_free_of_bubbles_only_from_step_to_step(p):
    m = 4 * p
    for name in ("zb-h2", "zb-v"):
        run = simulate(make(name, p, m).validate(), StageCosts.uniform(p), steps=3)
        assert run.step_s == pytest.approx(3 * m) == make(name, p, m).formula(StageCosts.uniform(p)).seconds
        assert run.device_span == pytest.approx(3 * m)
    alone = {n: simulate(make(n, p, m), StageCosts.uniform(p)) for n in ("zb-h1", "zb-h2", "zb-v")}
    assert alone["zb-h2"].makespan == alone["zb-h1"].makespan  # extra memory buys nothing with one global end
    assert alone["zb-v"].makespan == pytest.approx(3 * m + (p - 1) / 2)
    assert alone["zb-h2"].activation_peak.max() == 2 * p - 1
    assert alone["zb-v"].activation_peak.max() == alone["zb-h1"].activation_peak.max() == p


@pytest.mark.parametrize("p", [4, 8, 16])
def test_controlled_memory(p):
    bubble = 3 * (p - 1)  # of 1F1B, in units
    half, third = (simulate(make(n, p, 2 * p).validate(), StageCosts.uniform(p)) for n in ("v-half", "v-min"))
    assert p / 2 <= half.activation_peak.max() <= p / 2 + 1.5
    assert p / 3 <= third.activation_peak.max() <= p / 3 + 1.5
    assert half.makespan - 6 * p <= bubble / 2 + 2.5
    assert third.makespan - 6 * p <= 2 * bubble / 3


@pytest.mark.parametrize("p", [2, 4, 8])
def test_dualpipe_has_the_published_bubble_and_memory(p):
    costs = StageCosts.uniform(p)
    schedule = make("dualpipe", p, 4 * p).validate()
    run = simulate(schedule, costs)
    assert run.makespan == schedule.formula(costs).seconds == 3 * 4 * p + p - 2
    assert run.activation_peak.max() == p + 1
    folded = simulate(make("dualpipev", p, 4 * p).validate(), costs)
    assert folded.activation_peak.max() == p + 0.5  # half as many devices, each with half of the network's pieces


@settings(max_examples=60)
@given(st.sampled_from(families()), st.integers(1, 6), st.integers(1, 14), st.integers(1, 3))
def test_every_table_is_valid_or_refused_in_one_line(name, p, m, k):
    try:
        schedule = make(name, p, m, chunks=k, waves=k)
    except ConfigError as e:
        assert "\n" not in str(e)
        return
    run = simulate(schedule.validate(), StageCosts.uniform(p))
    assert all(curve[-1] == 0 and curve.min() >= 0 for _, curve in run.memory)  # memory is back to 0
    work = 3 * m
    assert run.makespan >= work * (1 - 1e-9)
    assert run.busy.sum() == pytest.approx(work * p)
