"""Whole networks in one pass: against sampling, with gradients, and what cannot be rewritten."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netfit.bayes import Gaussian, calibrate_pfp, to_pfp
from netfit.bayes.pfp import register_moment_rule
from netfit.bayes.pfp._registry import RULES, SETTINGS
from netfit.bayes.svi import sampling
from netfit.errors import ConfigError, UnsupportedLayerError

from .nets import Residual, built, inputs, mlp

X = inputs(8, 6)


def sampled(model, x, n=1500):
    with torch.no_grad(), sampling(model, torch.Generator().manual_seed(0)):
        out = torch.stack([model(x) for _ in range(n)])
    centred = out - out.mean(0)
    return out.mean(0), torch.einsum("sbi,sbj->bij", centred, centred) / (n - 1)


def test_moments_of_the_logits_are_those_of_sampling():
    model = built(mlp, X)
    pfp = to_pfp(model, X)
    out = pfp(X)
    mean, cov = sampled(model, X)
    std = cov.diagonal(dim1=1, dim2=2).sqrt()
    assert ((out.mean - mean).abs() < 0.25 * std).all()
    assert ((out.var.sqrt() / std).log().abs() < 0.2).all()
    off = ~torch.eye(3, dtype=torch.bool)
    correlation = torch.corrcoef(torch.stack([out.cov[:, off].flatten(), cov[:, off].flatten()]))[0, 1]
    assert correlation > 0.95
    # Without the hidden layer's own covariance a good part of it is lost.
    pfp.head = pfp.head._replace(activation=None, hidden=None)
    without = pfp(X)
    found, less = ((c[:, off] * cov[:, off]).sum() / cov[:, off].square().sum() for c in (out.cov, without.cov))
    assert less < found < 1.3


def test_covariance_has_the_variance_on_its_diagonal_and_is_positive():
    out = to_pfp(built(mlp, X), X)(X)
    assert torch.equal(out.cov.diagonal(dim1=1, dim2=2), out.var)
    assert torch.linalg.eigvalsh(out.cov).min() > 0
    assert to_pfp(built(mlp, X), X, head_cov="diag")(X).cov is None


def test_gradients():
    model = built(lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), inputs(2, 4)).double()
    pfp = to_pfp(model, inputs(2, 4).double()).train()
    names = [n for n, _ in pfp.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in pfp.parameters()]

    def pass_(x, *parameters):
        out = torch.func.functional_call(pfp, dict(zip(names, parameters, strict=True)), (x,))
        return out.mean, out.var, out.cov

    assert torch.autograd.gradcheck(pass_, (inputs(3, 4).double().requires_grad_(), *values))


def test_training_mode_follows_the_parameters_and_evaluation_mode_does_not():
    pfp = to_pfp(built(mlp, X), X)
    before = pfp(X).var
    with torch.no_grad():
        for p in pfp.parameters():
            p.add_(0.1)
    assert torch.equal(pfp(X).var, before)
    assert not torch.equal(pfp.train()(X).var, before)
    assert not torch.equal(pfp.eval()(X).var, before)


def test_pooled_networks_agree_with_sampling_after_calibration():
    x = inputs(6, 2, 12, 12)
    model = built(Residual, x)
    pfp = to_pfp(model, x)
    before = pfp.settings()
    assert before == {"max_pool2d": {"how": "select"}, "adaptive_avg_pool2d": {"rho": 0.0}}
    report = calibrate_pfp(pfp, x, samples=150)
    assert pfp.settings()["adaptive_avg_pool2d"]["rho"] > 0.01
    alone = to_pfp(model, x, avgpool_rho=0.0)
    calibrate_pfp(alone, x, samples=150)
    # Channels of one pooled image covary too, which no rule knows of: what is left is one factor.
    assert alone.scale**-0.5 < 0.6 < 0.75 < pfp.scale**-0.5 < 1
    assert report.places[-1].setting.startswith("scale=") and report.places[-1].good
    others = inputs(8, 2, 12, 12, seed=9)
    std = sampled(model, others, 400)[1].diagonal(dim1=1, dim2=2).sqrt()
    assert 0.85 < (pfp(others).var.sqrt() / std).median() < 1.15
    again = to_pfp(model, x)
    again.use(pfp.settings())
    assert torch.equal(again(x).var, pfp(x).var)
    fixed = to_pfp(model, x, maxpool="clark", avgpool_rho=0.5)
    calibrate_pfp(fixed, x, samples=20)
    chosen = {"max_pool2d": {"how": "clark"}, "adaptive_avg_pool2d": {"rho": 0.5}}
    assert {k: v for k, v in fixed.settings().items() if k != "logits"} == chosen


def test_calibration_prefers_clark_for_independent_inputs():
    """A pool over outputs of weights of their own: nothing is shared within a window but the input."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 32), nn.Linear(8, 3)

        def forward(self, x):
            x = F.max_pool2d(self.fc1(x).reshape(-1, 2, 4, 4), 2)
            return self.fc2(x.flatten(1))

    x = inputs(16, 4)
    pfp = to_pfp(built(Own, x), x)
    calibrate_pfp(pfp, x, samples=300)
    assert pfp.settings()["max_pool2d"]["how"] == "clark"


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(torch.exp(-self.fc1(x).square()))


def test_an_operator_without_a_rule_names_itself_its_place_and_the_ways_out():
    model = built(Odd, X)
    with pytest.raises(
        UnsupportedLayerError, match=r"no moment rule for aten\.(square|pow\.\w+) at '\w+'.*register_moment_rule.*mc"
    ):
        to_pfp(model, X)
    mean, cov = sampled(model, X)
    std = cov.diagonal(dim1=1, dim2=2).sqrt()
    for how in ("quadrature", "mc"):
        out = to_pfp(model, X, fallback=how, head_cov="diag")(X)
        # The chain of three operators treats what they share as independent.
        assert ((out.mean - mean).abs() < 0.6 * std).all(), how
        assert (out.var.sqrt() / std).log().abs().median() < 0.3, how


def test_users_own_rules():
    target = torch.ops.aten.cos.default
    assert target not in RULES

    @register_moment_rule(target)
    def cos(x):
        return Gaussian(torch.cos(x.mean), x.var)

    try:

        class Cosine(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)

            def forward(self, x):
                return self.fc2(torch.cos(self.fc1(x)))

        assert (to_pfp(built(Cosine, X), X)(X).var > 0).all()
    finally:
        del RULES[target], SETTINGS[target]


def test_average_pooling_goes_in_front_of_a_pointwise_convolution():
    class Pointwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mix, self.fc = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 8, 1), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(F.adaptive_avg_pool2d(self.mix(F.relu(self.conv(x))), 1).flatten(1))

    x = inputs(4, 2, 6, 6)
    model = built(Pointwise, x)
    pfp = to_pfp(model, x)
    kinds = [step.kind for step in pfp.program.steps]
    assert kinds.index("adaptive_avg_pool2d") < kinds.index("conv2d", kinds.index("relu"))
    mean, cov = sampled(model, x, 1000)
    std = cov.diagonal(dim1=1, dim2=2).sqrt()
    assert ((pfp(x).mean - mean).abs() < 0.2 * std).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: to_pfp(m.train(), X), "training mode.*eval"),
        (lambda m: to_pfp(mlp().eval(), X), "no Bayesian layer"),
        (lambda m: to_pfp(m, X, maxpool="largest"), "maxpool='largest'"),
        (lambda m: to_pfp(m, X, avgpool_rho={"pool": 0.1}), "no average pooling is called 'pool'"),
        (lambda m: to_pfp(built(lambda: nn.Linear(6, 600), X), X), "600 classes.*head_cov='diag'"),
        (lambda m: to_pfp(built(lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU()), X), X), "head_cov='diag'"),
        (lambda m: calibrate_pfp(to_pfp(m, X), X, samples=3), "at least 20"),
        (lambda m: to_pfp(m, X).use({"relu": {"how": "clark"}}), "no pooling is called 'relu'"),
        (lambda m: to_pfp(m, X).use({"logits": {"scale": 0}}), "scale=0 is no positive factor"),
        (lambda m: Gaussian(X, -X.square()).check(), "variances are negative"),
        (lambda m: Gaussian(X / 0).check(), "not finite"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        change(built(mlp, X))
