"""Schedules of the noise: their course, their law, and how a model follows one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netfit.analog import AdditiveGaussian, Injection
from netfit.analog.schedules import Constant, HalfNormal, LinearRamp, OrnsteinUhlenbeck, Overshoot, Trace
from netfit.errors import ConfigError

from .nets import perceptron


def test_half_normal_has_the_stated_mean_and_floor():
    schedule = HalfNormal(1.3, alpha=0.45, theta=0.52)
    torch.manual_seed(0)
    draws = schedule(step=0, batch=100_000)
    assert draws.shape == (100_000,) and draws.min() >= 0.45 * 1.3
    assert schedule.mean == pytest.approx(0.45 * 1.3 + 0.52 * math.sqrt(2 / math.pi))
    assert draws.mean().item() == pytest.approx(schedule.mean, rel=0.01)
    assert HalfNormal(1.0).mean == pytest.approx(0.849, abs=1e-3)


def test_warm_up_rises_for_all_samples_alike_and_then_ends():
    schedule = HalfNormal(2.0, warmup=10, per="batch")
    assert [schedule(step, 8) for step in (0, 5)] == [0.0, 1.0]
    assert isinstance(schedule(10, 8), float) and schedule(10, 8) >= 0.9


@given(st.floats(0, 5), st.integers(1, 50), st.integers(1, 50))
def test_ramps_stay_between_zero_and_their_peak(std, up, down):
    ramp, over = LinearRamp(std, up), Overshoot(std, up, down)
    values = [over(step, 1) for step in range(up + down + 3)]
    assert max(values) == pytest.approx(1.5 * std) and values[-1] == pytest.approx(std)
    assert [ramp(step, 1) for step in range(up + 1)] == sorted(ramp(step, 1) for step in range(up + 1))
    assert ramp(up + 7, 1) == std


def test_ornstein_uhlenbeck_has_its_moments_and_its_memory():
    path = [OrnsteinUhlenbeck(10.0, 0.5, tau=5.0, seed=3)(step, 1) for step in range(20_000)]
    x = torch.tensor(path, dtype=torch.float64)
    assert x.mean().item() == pytest.approx(10.0, abs=0.05) and x.std().item() == pytest.approx(0.5, rel=0.05)
    y = (x - x.mean()) / x.std()
    assert (y[5:] * y[:-5]).mean().item() == pytest.approx(math.exp(-1), abs=0.05)
    again = OrnsteinUhlenbeck(10.0, 0.5, tau=5.0, seed=3)
    assert again(7, 1) == path[7] != OrnsteinUhlenbeck(10.0, 0.5, tau=5.0, seed=4)(7, 1)
    assert min(OrnsteinUhlenbeck(0.0, 1.0, tau=1.0)(step, 1) for step in range(50)) == 0.0


def test_trace_is_read_from_csv(tmp_path):
    place = tmp_path / "drift.csv"
    place.write_text("time,std\n0,0.1\n10,0.3\n")
    assert Trace.load(place)(5, 1) == pytest.approx(0.2) and Trace.load(place)(99, 1) == 0.3
    place.write_text("time,std\n0,high\n")
    with pytest.raises(ConfigError, match=r"drift.csv is no trace"):
        Trace.load(place)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Constant, (-1.0,)),
        (LinearRamp, (math.nan, 3)),
        (Overshoot, (1.0, -1, 2)),
        (HalfNormal, (1.0, 0.45, -0.1)),
        (HalfNormal, (1.0, 0.45, 0.5, "epoch")),
        (OrnsteinUhlenbeck, (1.0, 0.1, 0.0)),
        (Trace, ((0, 0), (1.0, 1.0))),
        (Trace, ((0,), ())),
    ],
)
def test_bad_settings(kind, arguments):
    with pytest.raises(ConfigError, match=kind.__name__):
        kind(*arguments)


def test_a_model_follows_in_training_only():
    x = torch.randn(8, 64)
    injection = Injection.everywhere(perceptron(), AdditiveGaussian(0.0), x)
    injection.follow(LinearRamp(1.0, steps=4), step=2)
    seen = []
    for _ in range(3):
        injection.model.train()(x)
        seen.append({h.scheduled for h in injection._hooks.values()})
    assert seen == [{0.5}, {0.75}, {1.0}]
    clean = perceptron()
    clean.load_state_dict(injection.model.state_dict())
    assert torch.equal(injection.model.eval()(x), clean.eval()(x))
    injection.follow(None)
    assert torch.equal(injection.model.train()(x), clean.train()(x))


def test_one_draw_a_sample_is_shared_by_all_sites():
    x = torch.randn(8, 64)
    injection = Injection.everywhere(perceptron(), AdditiveGaussian(0.0), x)
    injection.follow(HalfNormal(1.0))
    injection.model.train()(x).sum().backward()
    first, *others = [h.scheduled for h in injection._hooks.values()]
    assert first.shape == (8,) and len(set(first.tolist())) == 8
    assert all(other is first for other in others)
