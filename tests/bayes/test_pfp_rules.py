"""Moment rules against closed forms and quadrature in double precision."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.bayes import Gaussian
from netfit.bayes.pfp._elementwise import max_of_two, slope
from netfit.bayes.pfp._registry import rule_of

aten = torch.ops.aten
MEANS = torch.linspace(-3, 3, 13, dtype=torch.float64)
STDS = torch.tensor([0.05, 0.4, 1.0, 2.0], dtype=torch.float64)


def rule(target):
    return rule_of(target)[0]


def grid(dtype=torch.float64):
    m, s = torch.meshgrid(MEANS, STDS, indexing="ij")
    return Gaussian(m.to(dtype), s.square().to(dtype))


def integral(function, x, points=40001):
    """Mean and variance of f(x) by the trapezoidal rule over nine standard deviations."""
    t = torch.linspace(-9, 9, points, dtype=torch.float64)
    weight = torch.exp(-t.square() / 2)
    weight = weight / weight.sum()
    y = function(x.mean.double()[..., None] + x.var.double().sqrt()[..., None] * t)
    mean = (y * weight).sum(-1)
    return mean, ((y - mean[..., None]).square() * weight).sum(-1)


@pytest.mark.parametrize(
    ("target", "function", "tolerance"),
    [
        (aten.relu.default, F.relu, 1e-5),
        (aten.leaky_relu.default, F.leaky_relu, 1e-5),
        (aten.gelu.default, F.gelu, 1e-4),
        (aten.silu.default, F.silu, 1e-4),
        (aten.tanh.default, torch.tanh, 1e-4),
        (aten.sigmoid.default, torch.sigmoid, 1e-4),
    ],
)
def test_activations(target, function, tolerance):
    x = grid()
    got, (mean, var) = rule(target)(x), integral(function, x)
    # Far in a dead ReLU nothing is left to be relative to: there, the input's own variance is the scale.
    assert ((got.mean - mean).abs() <= tolerance * (mean.abs() + 1e-2 * x.var.sqrt())).all()
    assert ((got.var - var).abs() <= tolerance * (var + 1e-2 * x.var)).all()


@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e4])
def test_variances_of_float32_do_not_cancel(ratio):
    g = torch.Generator().manual_seed(0)
    w, s = torch.randn(8, 32, generator=g), torch.rand(8, 32, generator=g) * 0.1
    v = torch.rand(4, 32, generator=g) + 0.1
    m = ratio * v.sqrt() * torch.sign(torch.randn(4, 32, generator=g))
    got = rule(aten.linear.default)(Gaussian(m, v), Gaussian(w, s.square()), None)
    m, v, w, s = (t.double() for t in (m, v, w, s))
    want = (m.square() + v) @ s.square().T + v @ w.square().T
    assert ((got.var - want).abs() / want).max() < 1e-5
    relu = rule(aten.relu.default)(Gaussian(m.float(), v.float()))
    assert (relu.var >= 0).all()
    alive = m > 0
    exact = rule(aten.relu.default)(Gaussian(m, v)).var
    assert ((relu.var - exact).abs() <= 1e-5 * (exact + 1e-3 * v))[alive].all()


@pytest.mark.parametrize(
    ("target", "args", "shape", "weight"),
    [
        (aten.conv1d.default, ([2], [1], [2], 2), (3, 4, 15), (6, 2, 3)),
        (aten.conv2d.default, ([2, 1], [1, 0], [1, 2], 1), (2, 3, 9, 8), (5, 3, 3, 2)),
        (aten.conv2d.default, ([1, 1], [1, 1], [1, 1], 4), (2, 4, 6, 6), (8, 1, 3, 3)),
    ],
)
def test_convolutions_are_linear_layers(target, args, shape, weight):
    """A convolution is a matrix whose entries repeat: the rule for matrices must give the same."""
    g = torch.Generator().manual_seed(1)
    x = Gaussian(torch.randn(shape, generator=g).double(), torch.rand(shape, generator=g).double())
    w = Gaussian(torch.randn(weight, generator=g).double(), torch.rand(weight, generator=g).double())
    got = rule(target)(x, w, None, *args)
    function = F.conv1d if len(shape) == 3 else F.conv2d
    unit = torch.eye(math.prod(shape[1:]), dtype=torch.float64).reshape(-1, *shape[1:])
    matrix = {n: function(unit, t, None, *args).flatten(1).T for n, t in (("mean", w.mean), ("var", w.var))}
    flat = Gaussian(x.mean.flatten(1), x.var.flatten(1))
    want = rule(aten.linear.default)(flat, Gaussian(matrix["mean"], matrix["var"]), None)
    assert torch.allclose(got.mean.flatten(1), want.mean, rtol=1e-10)
    assert torch.allclose(got.var.flatten(1), want.var, rtol=1e-10)


def test_first_layer_knows_its_input_exactly():
    x, w = torch.randn(4, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    out = rule(aten.linear.default)(Gaussian(x), Gaussian(w, w.square()), None)
    assert torch.allclose(out.var, x.square() @ w.square().T)


def test_affine_maps_are_exact():
    x = grid()
    x = Gaussian(x.mean[None], x.var[None])  # one image of 13 channels
    scale, shift = torch.rand(13, dtype=torch.float64) + 0.5, torch.randn(13, dtype=torch.float64)
    out = rule(aten.batch_norm.default)(x, scale, shift, shift, scale, False, 0.1, 1e-5)
    factor = scale / (scale + 1e-5).sqrt()
    assert torch.allclose(out.var, x.var * factor.square()[None, :, None])
    assert torch.allclose(out.mean, (x.mean - shift[None, :, None]) * factor[None, :, None] + shift[None, :, None])
    doubled = rule(aten.add.Tensor)(x, x)
    assert torch.allclose(doubled.var, 4 * x.var)  # of one tensor with itself, not of two independent ones
    added = rule(aten.add.Tensor)(x, Gaussian(x.mean.clone(), x.var), alpha=2)
    assert torch.allclose(added.var, 5 * x.var)
    assert torch.allclose(rule(aten.mul.Tensor)(x, -3.0).var, 9 * x.var)
    both = rule(aten.cat.default)([x, Gaussian(x.mean)], 1)
    assert both.mean.shape == (1, 26, 4)
    assert (both.var[:, 13:] == 0).all()
    flat = rule(aten.flatten.using_ints)(x, 1)
    assert torch.equal(flat.var, x.var.flatten(1))


@settings(max_examples=30)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.05, 2), st.floats(0.05, 2))
def test_max_of_two(m1, m2, s1, s2):
    out = max_of_two(*(Gaussian(torch.tensor([m], dtype=torch.float64), torch.tensor([s * s], dtype=torch.float64))
                       for m, s in ((m1, s1), (m2, s2))))  # fmt: skip
    t = np.linspace(-9, 9, 901)
    w = np.exp(-t * t / 2)
    w /= w.sum()
    y = np.maximum(m1 + s1 * t[:, None], m2 + s2 * t[None, :])
    mean = float(w @ y @ w)
    var = float(w @ (y - mean) ** 2 @ w)
    assert out.mean.item() == pytest.approx(mean, rel=1e-4, abs=1e-4)
    assert out.var.item() == pytest.approx(var, rel=1e-3)


def test_averages_and_their_correlation():
    g = torch.Generator().manual_seed(2)
    x = Gaussian(torch.randn(2, 3, 4, 4, generator=g), torch.rand(2, 3, 4, 4, generator=g))
    for target, args in ((aten.avg_pool2d.default, ([4, 4],)), (aten.adaptive_avg_pool2d.default, ([1, 1],)),
                         (aten.mean.dim, ([-1, -2], True))):  # fmt: skip
        alone, shared, half = (rule(target)(x, *args, rho=r) for r in (0.0, 1.0, 0.5))
        assert torch.allclose(alone.mean, x.mean.mean((2, 3), keepdim=True), atol=1e-6)
        assert torch.allclose(alone.var, x.var.sum((2, 3), keepdim=True) / 256)
        assert torch.allclose(shared.var, x.var.sqrt().mean((2, 3), keepdim=True).square(), rtol=1e-5)
        assert torch.allclose(half.var, (alone.var + shared.var) / 2, rtol=1e-5)


def test_maximum_pooling_has_torchs_windows():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 9, 8, generator=g)
    for args in (([2, 2],), ([3, 2], [2, 1]), ([3, 3], [2, 2], [1, 1]), ([2, 2], [1, 1], [0, 0], [2, 2])):
        want = F.max_pool2d(x, *args)
        for how in ("select", "clark"):
            got = rule(aten.max_pool2d.default)(Gaussian(x, torch.full_like(x, 1e-12)), *args, how=how)
            assert torch.allclose(got.mean, want, atol=1e-4), (args, how)
            assert got.var.isfinite().all()


def test_layer_norm_of_what_is_known_is_layer_norm():
    x = torch.randn(4, 16, dtype=torch.float64)
    w, b = torch.rand(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    out = rule(aten.layer_norm.default)(Gaussian(x, torch.full_like(x, 1e-12)), [16], w, b)
    assert torch.allclose(out.mean, F.layer_norm(x, (16,), w, b), atol=1e-9)


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "gelu", "tanh"])
def test_slopes(kind):
    """E[f'] is what a shift of the mean does to the mean."""
    x, step = Gaussian(torch.tensor([-1.0, 0.2, 1.5]).double(), torch.tensor([0.5, 1.0, 2.0]).double()), 1e-5
    target = getattr(aten, kind).default
    up, down = (rule(target)(Gaussian(x.mean + d, x.var)).mean for d in (step, -step))
    assert torch.allclose(slope(kind, x), (up - down) / (2 * step), atol=1e-5)
