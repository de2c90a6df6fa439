"""Noise at call sites: its moments, its manners, and what it refuses."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from netfit.analog import AdditiveGaussian, Injection, MixedGaussian, MultiplicativeGaussian, sites
from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantize, apply, calibrate, plain
from netfit.testing import TechniqueContract

from .nets import Residual, perceptron


class TestAdditive(TechniqueContract):
    @pytest.fixture
    def technique(self):
        return AdditiveGaussian(0.3, relative_to="rms")


class TestMultiplicative(TechniqueContract):
    @pytest.fixture
    def technique(self):
        return MultiplicativeGaussian(0.3)


class TestMixed(TechniqueContract):
    @pytest.fixture
    def technique(self):
        return MixedGaussian(0.1, 0.2, order="add_mul", repeats=2)


def noisy_identity(noise, x):
    injection = Injection(apply(nn.Identity(), Policy({"input": noise}), x))
    injection.draw_from(seed=0)
    return injection.model(x)


@pytest.mark.parametrize(
    ("noise", "mean", "std"),
    [
        (AdditiveGaussian(0.5), 3.0, 0.5),
        (AdditiveGaussian(0.5, relative_to="absmax"), 3.0, 1.5),
        (AdditiveGaussian(0.5, relative_to="rms", repeats=4), 3.0, 0.75),
        (MultiplicativeGaussian(0.5), 3.0, 1.5),
        (MultiplicativeGaussian(0.5, mean=2.0), 6.0, 1.5),
        (MultiplicativeGaussian(0.5, repeats=9), 3.0, 0.5),
        (MixedGaussian(0.4, 0.1), 3.0, 0.5),
        (MixedGaussian(0.4, 0.1, order="add_mul"), 3.0, math.sqrt(0.25 + 0.04**2)),
    ],
)
def test_moments(noise, mean, std):
    x = torch.full((400, 1000), 3.0)
    y = noisy_identity(noise, x)
    assert y.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(x.numel()))
    assert y.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * x.numel()))


def test_from_amplitude_and_set_std_keep_the_ratio():
    noise = MixedGaussian.from_amplitude(2.0, ratio=0.25)
    injection = Injection(apply(nn.Identity(), Policy({"input": noise}), torch.zeros(1)))
    injection.set_std(4.0)
    injection.draw_from(seed=1)
    assert injection.model(torch.zeros(200_000)).std().item() == pytest.approx(1.0, rel=0.01)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture
def x():
    return torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def everywhere(net, x, std=0.5, **settings):
    return Injection.everywhere(net, AdditiveGaussian(std, **settings), x)


def test_sites_are_what_computes(net, x):
    assert [(s.name, s.call) for s in sites(net, x)] == [
        ("input", 0), ("stem", 0), ("act", 0), ("body", 0), ("add", 0), ("act", 1), ("mean", 0), ("fc", 0),
    ]  # fmt: skip
    assert everywhere(net, x).sites == tuple(s.key for s in sites(net, x))


def test_the_state_dict_stays_and_a_checkpoint_never_brings_a_std(net, x):
    injection = everywhere(net, x)
    state = injection.model.state_dict()
    assert list(state) == list(net.state_dict())
    injection.set_std(0.25)
    injection.model.load_state_dict(everywhere(net, x, std=3.0).model.state_dict())
    assert set(injection.stds.values()) == {0.25}


def test_removing_it_and_switching_it_off_are_bit_exact(net, x):
    injection = everywhere(net, x)
    assert torch.equal(plain(injection.model)(x), net(x))
    injection.set_std(0.0)
    assert torch.equal(injection.model(x), net(x))


def test_noise_in_training_leaves_evaluation_clean(net, x):
    noisy = everywhere(net, x, when="train").model
    assert torch.equal(noisy.eval()(x), net(x))
    assert not torch.equal(noisy.train()(x), net(x))
    other = everywhere(net, x, when="eval").model
    assert torch.equal(other.train()(x), net.train()(x))


@pytest.mark.parametrize("source", ["exact", "pool"])
def test_a_sites_draws_do_not_depend_on_threads_or_other_sites(net, x, source):
    def add_noise(pattern, threads):
        torch.set_num_threads(threads)
        injection = Injection(apply(net, Policy({pattern: AdditiveGaussian(0.5)}), x))
        injection.draw_from(source, seed=3)
        if pattern == "*":
            for site in injection.sites:
                injection.set_std(0.5 if site == ("body", 0) else 0.0, site)
        return injection.model(x)

    runs = [add_noise("body", 1), add_noise("body", 2), add_noise("*", 1)]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], net(x))


def test_one_std_a_sample(net, x):
    injection = everywhere(net, x)
    injection.set_std(torch.tensor([0.0, 1.0, 0.0, 1.0]))
    same = (injection.model(x) - net(x)).abs().amax(1) == 0
    assert same.tolist() == [True, False, True, False]
    injection.set_std(torch.ones(3))
    with pytest.raises(ConfigError, match="'input': 3 standard deviations for a batch of 4"):
        injection.model(x)


def test_gradients(x):
    for noise, expected in ((AdditiveGaussian(1.0), None), (MultiplicativeGaussian(1.0), "factor")):
        leaf = x.clone().requires_grad_()
        y = noisy_identity(noise, leaf)
        (gradient,) = torch.autograd.grad(y.sum(), leaf)
        assert torch.allclose(gradient, torch.ones_like(x) if expected is None else y.detach() / x, rtol=1e-4)


def test_a_tuple_result_gets_noise_on_its_first_tensor():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4)

        def forward(self, x):
            return self.lstm(x)

    lstm, x = Net().eval(), torch.randn(5, 2, 3)
    noisy = apply(lstm, Policy({"kind:lstm": AdditiveGaussian(1.0)}), x)
    assert not torch.equal(noisy(x)[0], lstm(x)[0]) and torch.equal(noisy(x)[1][0], lstm(x)[1][0])


def test_it_acts_behind_the_rounding(x):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    policy = Policy({"kind:conv2d": [AdditiveGaussian(100.0), Quantize()]})
    noisy = apply(net, policy, x)
    calibrate(noisy, [x])
    values = Injection(noisy).model(x)
    assert values.max() > 50  # the quantizer would have clipped it
    assert torch.equal(plain(noisy)(x), net(x))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of dynamo's own look at module hooks
@pytest.mark.parametrize("shape", ["compile", "vmap", "functional_call", "deepcopy"])
def test_torch_transforms(net, x, shape):
    injection = everywhere(net, x, std=0.1)
    model = injection.model
    if shape == "compile":
        out = torch.compile(model, backend="eager")(x)
    elif shape == "vmap":
        state = dict(model.named_parameters())
        stacked = {k: torch.stack([v, v]) for k, v in state.items()}
        call = vmap(lambda p: functional_call(model, p, (x,)), randomness="different")
        out = call(stacked)
        assert not torch.equal(out[0], out[1])
        out = out[0]
    elif shape == "functional_call":
        out = functional_call(model, dict(model.named_parameters()), (x,))
    else:
        injection.draw_from(seed=2)
        out = copy.deepcopy(model)(x)
        assert torch.equal(out, model(x))
    assert 0 < (out - net(x)).abs().max() < 3


def test_export_shows_the_draw(net, x):
    program = torch.export.export(everywhere(net, x).model, (x,))
    assert "randn_like" in str(program.graph)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdditiveGaussian(-0.1), "std must be a finite number of at least 0, not -0.1"),
        (lambda: MultiplicativeGaussian(math.nan), "std must be a finite number of at least 0, not nan"),
        (lambda: MixedGaussian(0.1, math.inf), "mul_std must be a finite number"),
        (lambda: MixedGaussian(0.1, 0.1, order="mul"), "order must be 'mul_add' or 'add_mul', not 'mul'"),
        (lambda: MixedGaussian.from_amplitude(1.0, 2.0), "ratio must be between 0 and 1, not 2.0"),
        (lambda: AdditiveGaussian(1.0, relative_to="max"), "relative_to must be 'rms' or 'absmax'"),
        (lambda: AdditiveGaussian(1.0, when="never"), "when must be 'always' or 'train' or 'eval', not 'never'"),
        (lambda: AdditiveGaussian(1.0, repeats=0), "repeats must be at least 1, not 0"),
        (lambda: Injection(nn.Identity()), "has no noise"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_bad_places(net, x):
    with pytest.raises(ConfigError, match=r"'stme' matches no site: did you mean 'stem'"):
        apply(net, Policy({"stme": AdditiveGaussian(1.0)}), x)
    with pytest.raises(ConfigError, match="no noise at 'boddy': did you mean 'body'"):
        everywhere(net, x).set_std(1.0, "boddy")
    with pytest.raises(ConfigError, match=r"at least 0, not -1"):
        everywhere(net, x).set_std(-1)
    words = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=r"noise at 'input' needs a real floating-point tensor, not torch\.int64"):
        apply(words, Policy({"*": AdditiveGaussian(1.0)}), torch.tensor([[1, 2]]))
    with pytest.raises(ConfigError, match=r"noise at 'input' needs a real floating-point tensor, not torch\.complex64"):
        everywhere(nn.Identity(), x.to(torch.complex64))


def test_perceptron_with_batchnorm_trains_under_noise_on_every_site():
    x = torch.randn(16, 64)
    model = everywhere(perceptron(bn=True), x, std=1.0).model.train()
    model(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
