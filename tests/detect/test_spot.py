"""Thresholds: the alarm rate that was asked for, exact restarts, fits that agree."""

import numpy as np
import pytest
from scipy.stats import genpareto

from netfit.detect import SPOT
from netfit.detect._spot import fit_tail


@pytest.mark.parametrize("q", [1e-2, 1e-3])
@pytest.mark.parametrize("draw", ["exponential", "standard_normal", "heavy"])
def test_the_alarm_rate_is_about_what_was_asked_for(q, draw):
    rng = np.random.default_rng(0)
    scores = rng.pareto(4, 20_000) if draw == "heavy" else getattr(rng, draw)(size=20_000)
    level = 0.9 if q > 5e-3 else 0.98
    rate = SPOT(q=q, level=level).start().run(scores)[288:].mean()
    assert q / 3 <= rate <= 3 * q


@pytest.mark.parametrize("q", [1e-2, 1e-3])
def test_the_rate_follows_q_when_scores_become_smaller_than_at_first(q):
    scores = np.random.default_rng(5).exponential(size=12_000)
    scores[:300] *= 6  # as before usual distances are known
    level = 0.9 if q > 5e-3 else 0.98
    rate = SPOT(q=q, level=level).start().run(scores)[2000:].mean()
    assert q / 3 <= rate <= 3 * q


def test_a_level_that_drifts_needs_depth():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=6000) + np.linspace(0, 60, 6000)
    plain = SPOT().start().run(scores)
    moving = SPOT(depth=50).start().run(scores)
    assert plain.mean() > 0.5 and moving.mean() < 0.01


def test_a_restart_changes_nothing():
    scores = np.random.default_rng(2).exponential(size=2000)
    whole = SPOT(depth=20).start()
    want = whole.run(scores)
    first, second = SPOT(depth=20).start(), SPOT(depth=20).start()
    got = [first.run(scores[:700])]
    second.restore(first.state())
    got.append(second.run(scores[700:]))
    assert np.array_equal(np.concatenate(got), want) and second.threshold == whole.threshold


def test_scores_that_never_differ_raise_no_alarm_until_they_do():
    spot = SPOT(warmup=50).start()
    assert not spot.run(np.zeros(500)).any() and spot.update(1.0)
    assert not spot.update(float("nan"))


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.3])
def test_both_fits_find_the_tail(shape):
    x = genpareto.rvs(shape, scale=2.0, size=4000, random_state=3)
    for method in ("pwm", "likelihood"):
        found, scale = fit_tail(x, method)
        assert abs(found - shape) < 0.08 and abs(scale - 2) < 0.15


def test_the_likelihood_fit_is_the_most_likely_one():
    x = genpareto.rvs(0.2, scale=1.0, size=300, random_state=4)
    ours, theirs = fit_tail(x, "likelihood"), genpareto.fit(x, floc=0)
    likelihood = [genpareto.logpdf(x, c, scale=s).sum() for c, s in (ours, (theirs[0], theirs[2]))]
    assert likelihood[0] >= likelihood[1] - 0.01
