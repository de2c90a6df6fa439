"""Hardening beside its baselines, environments, and quantization with a constant step."""

import functools

import pytest
import torch
from torch import nn

from netfit.analog import AdditiveGaussian, ConstantScale, Trainer, environment, harden, robustness
from netfit.analog.schedules import HalfNormal, OrnsteinUhlenbeck, Trace
from netfit.errors import ConfigError
from netfit.runs import Run
from netfit.surgery import Policy, apply, plain
from netfit.testing import TechniqueContract

from .nets import perceptron


class TestConstantScale(TechniqueContract):
    @pytest.fixture
    def technique(self):
        return ConstantScale(scale=0.05, bits=6)


@pytest.fixture(scope="module")
def digits():
    from netfit.data import load

    (x, y), test = load("digits").tensors(), load("digits", "test").tensors()
    return (x[:800], y[:800]), test


@pytest.fixture(scope="module")
def trainer(digits):
    return Trainer(functools.partial(perceptron, widths=(24, 24)), digits[0], epochs=4, lr=1e-2, batch_size=32)


@pytest.fixture(scope="module")
def hardened(trainer, digits, tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    with Run.open(place, "harden", {}, seed=0) as run:
        return place, harden(trainer, digits[1], 2.0, method="vant", levels=[0.2, 1.0, 2.0], run=run)


def test_the_baselines_are_always_there(hardened):
    _, found = hardened
    assert found.levels == (0.2, 1.0, 2.0)
    assert set(found.curves) == {"clean", "fixed 0.2", "fixed 1", "fixed 2", "vant"}
    clean, same, best = found.baselines
    assert (clean, same) == ("clean", "fixed 2") and best == found.best_fixed
    assert found.robustness[best].mean == max(found.robustness[f"fixed {x:g}"].mean for x in found.levels)
    assert found.oracle == tuple(found.curves[f"fixed {x:g}"][i] for i, x in enumerate(found.levels))
    assert found.mean_std < 2.0 and found.mean_std == pytest.approx(HalfNormal(2.0, theta=0.8).mean)
    assert len(set(found.curves.values())) == 5, "two trainings gave the same network"
    body = found.to_dict()
    assert body["baselines"] == ["clean", "fixed 2", best] and body["robustness"]["vant"]["worst"] <= 1.5


def test_a_finished_hardening_is_read_back(hardened, trainer, digits, monkeypatch):
    place, found = hardened
    monkeypatch.setattr("netfit.analog._harden.accuracies", lambda *a, **k: pytest.fail("judged again"))
    monkeypatch.setattr("netfit.train._fit._train_epoch", lambda *a: pytest.fail("trained again"))
    with Run.open(place, "harden", {}, seed=0) as run:
        again = harden(trainer, digits[1], 2.0, method="vant", levels=[0.2, 1.0, 2.0], run=run)
    assert again.curves == found.curves
    assert torch.equal(again.model(digits[1][0]), found.model(digits[1][0]))


def test_the_hardened_network_has_no_noise_and_the_quantized_one_its_rounding(hardened, trainer, digits):
    x = digits[1][0]
    model = hardened[1].model
    assert torch.equal(model(x), plain(model)(x))
    found = harden(trainer, digits[1], 1.0, method="qat_constant_scale", scale=0.5, levels=[1.0])
    assert found.mean_std == 0 and found.policy == Policy({"*": ConstantScale(0.5, 8)})
    assert not torch.equal(found.model(x), plain(found.model)(x))
    assert found.curves["qat_constant_scale"][0] > 0.2


def test_a_killed_training_under_a_schedule_resumes_to_the_same_bits(trainer, tmp_path):
    schedule, policy = HalfNormal(1.0, warmup=30), Policy({"*": AdditiveGaussian(1.0)})

    def stop(facts):
        if facts["epoch"] == 3:
            raise KeyboardInterrupt

    whole = trainer(policy, seed=1, schedule=schedule)
    with pytest.raises(KeyboardInterrupt):
        trainer(policy, seed=1, schedule=schedule, checkpoint=tmp_path / "fit", progress=stop)
    resumed = trainer(policy, seed=1, schedule=schedule, checkpoint=tmp_path / "fit")
    same = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


def test_constant_scale_rounds_to_its_step():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
    x = torch.randn(2, 1, 8, 8)
    rounded = apply(net, Policy({"*": ConstantScale(scale=0.25, bits=4)}), x)(x)
    assert rounded.max() <= 0.25 * 15
    assert torch.allclose(rounded / 0.25, (rounded / 0.25).round(), atol=1e-5)
    for arguments, message in (
        ((0.0,), "scale must be a positive number"),
        ((1.0, 1), "bits must be between 2 and 16"),
    ):
        with pytest.raises(ConfigError, match=message):
            ConstantScale(*arguments)


def test_robustness_is_relative_to_the_oracle():
    found = robustness([0.8, 0.6], [0.8, 0.8])
    assert (found.mean, found.worst) == (pytest.approx(0.875), pytest.approx(0.75))
    with pytest.raises(ConfigError, match="as many accuracies as oracles"):
        robustness([0.8], [0.0])


def test_an_environment_is_judged_step_by_step(hardened, digits):
    model, noise = hardened[1].model, AdditiveGaussian(1.0)
    course = Trace((0.0, 9.0), (0.0, 30.0))
    found = environment(model, noise, digits[1], course, steps=10)
    assert found.stds == pytest.approx([30 * i / 9 for i in range(10)])
    assert found.accuracy[0] == found.clean and found.accuracy[-1] < found.threshold < found.clean
    assert found.time_to_failure == next(i for i, a in enumerate(found.accuracy) if a < found.threshold)
    assert found.robustness.worst == pytest.approx(min(found.accuracy) / found.clean)
    quiet = environment(model, noise, digits[1], OrnsteinUhlenbeck(0.1, 0.01, 5.0), steps=5, threshold=0.2)
    assert quiet.time_to_failure is None and len(set(quiet.accuracy)) >= 1
    with pytest.raises(ConfigError, match="one value a sample"):
        environment(model, noise, digits[1], HalfNormal(1.0), steps=2)


def test_bad_hardening(trainer, digits):
    with pytest.raises(ConfigError, match="unknown method 'vnat'; did you mean 'vant'"):
        harden(trainer, digits[1], 1.0, method="vnat")
    with pytest.raises(ConfigError, match="levels of noise must be positive"):
        harden(trainer, digits[1], 1.0, levels=[0.0])
