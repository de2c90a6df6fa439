"""The decomposition, predictions by every method, and the scores."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netfit.bayes import Gaussian, metrics, predict, to_pfp, uncertainty
from netfit.errors import ConfigError

from .nets import built, inputs, mlp

X = inputs(40, 6)
Y = (X[:, 0] > 0).long()


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 1000))
def test_parts_add_up_and_stay_in_their_bounds(samples, classes, seed):
    u = uncertainty(5 * inputs(samples, 7, classes, seed=seed))
    assert torch.allclose(u.total, u.aleatoric + u.epistemic, atol=1e-5)
    assert (u.epistemic >= 0).all()
    assert (u.total <= math.log(classes) + 1e-5).all()
    assert torch.allclose(u.probs.sum(1), torch.ones(7), atol=1e-5)
    if samples == 1:
        assert (u.epistemic < 1e-5).all()
    assert torch.allclose(u.bits().total * math.log(2), u.total)


def test_a_gaussian_is_sampled_with_its_covariance():
    mean, cov = torch.zeros(1, 2), torch.tensor([[[4.0, 4.0], [4.0, 4.0]]])
    var = torch.full((1, 2), 4.0)
    apart, together = uncertainty(Gaussian(mean, var)), uncertainty(Gaussian(mean, var, cov))
    assert apart.epistemic > 0.1
    assert together.epistemic < 1e-3  # logits that move together change no probability
    assert uncertainty(Gaussian(mean)).epistemic < 1e-6
    batch = Gaussian(torch.randn(9, 3), torch.rand(9, 3))
    whole, part = uncertainty(batch), uncertainty(Gaussian(batch.mean[4:5], batch.var[4:5]))
    assert torch.allclose(whole.total[4:5], part.total)


def test_every_method_predicts():
    model = built(mlp, X)
    svi = predict(model, X, n_samples=200, batch_size=17)
    assert torch.allclose(svi.epistemic, predict(model, X, n_samples=200).epistemic, atol=1e-6)
    pfp = predict(to_pfp(model, X), X, method="pfp", n_samples=400)
    assert torch.corrcoef(torch.stack([pfp.epistemic, svi.epistemic]))[0, 1] > 0.97
    ensemble = predict([model, built(mlp, X).double().float()], X, method="ensemble")
    assert ensemble.epistemic.max() < 1e-5
    dropped = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 3))
    assert predict(dropped, X, method="mcdropout").epistemic.mean() > 1e-4
    assert not dropped[1].training


def test_scores_of_known_predictions():
    probs = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    zero = torch.zeros(4)
    u = uncertainty(probs.log())
    y = torch.tensor([0, 1, 1, 0])
    scores = metrics.evaluate(u, y)
    assert scores["acc"] == 0.75
    assert scores["nll"] == pytest.approx(
        -(math.log(0.8) + math.log(0.4) + math.log(0.7) + math.log(0.9)) / 4, rel=1e-5
    )
    assert scores["brier"] == pytest.approx((0.08 + 0.72 + 0.18 + 0.02) / 4, rel=1e-5)
    assert scores["auroc_error"] == 1.0  # the wrong one is the least sure
    assert scores["aurc"] == pytest.approx((0 + 0 + 0 + 0.25) / 4)
    assert 0 <= scores["eaurc"] <= scores["aurc"]
    assert scores["ece15"] == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4, rel=1e-4)
    coverage, risk = metrics.risk_coverage(u, y)
    assert coverage[-1] == 1 and risk[-1] == 0.25
    assert metrics.ood_auroc(u, uncertainty(zero[:, None].expand(4, 2)), "total") == 1.0
    assert metrics.ambiguity_auroc(u, uncertainty(torch.zeros(3, 2))) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uncertainty(torch.tensor([[1.0, math.nan]])), "1 of 2 logits are not finite"),
        (lambda: uncertainty(torch.zeros(3)), "give .batch, classes."),
        (lambda: uncertainty(Gaussian(torch.zeros(1, 2), -torch.ones(1, 2))), "variances are negative"),
        (lambda: predict(mlp(), X, method="svy"), "did you mean 'svi'"),
        (lambda: predict(mlp(), X), "no Bayesian layer"),
        (lambda: predict(mlp(), X, method="mcdropout"), "no dropout"),
        (lambda: predict(mlp(), X, method="ensemble"), "members"),
        (lambda: predict(built(mlp, X), X / 0), "not finite"),
        (lambda: metrics.evaluate(uncertainty(X), Y[:3]), "40 predictions for 3 labels"),
        (lambda: metrics.ood_auroc(uncertainty(X), uncertainty(X), "mean"), "score='mean'"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
