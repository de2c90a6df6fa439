"""Heads that agree on the data and disagree elsewhere."""

import math
import warnings

import pytest
import torch
from torch import nn

from netfit.bayes import predict
from netfit.bayes.repulsive import Cutmix, PatchShuffle, RepulsiveHeads, UniformNoise, fit_repulsive, repulsion_loss
from netfit.errors import ConfigError, UnsupportedLayerError

from .nets import Residual, inputs


def generator():
    return torch.Generator().manual_seed(0)


def data(n=240):
    x = inputs(n, 1, 8, 8)
    y = (x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))).long()
    return x, y


def heads(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU())
    return RepulsiveHeads(trunk, 24, 2, num_heads=5, seed=seed)


def test_repulsion_is_largest_where_all_agree_and_pushes_apart():
    same = torch.zeros(4, 6, 3)
    assert repulsion_loss(same).item() == pytest.approx(math.log(4))
    apart = (3 * torch.randn(4, 6, 3, generator=generator())).requires_grad_()
    loss = repulsion_loss(apart)
    assert loss < math.log(4)
    loss.backward()
    pushed = apart.detach() - 10 * apart.grad
    assert torch.pdist(pushed.softmax(2).flatten(1)).mean() > torch.pdist(apart.detach().softmax(2).flatten(1)).mean()
    assert torch.isfinite(repulsion_loss(apart, space="logit"))


def test_inputs_lose_their_label_and_nothing_else():
    x = inputs(6, 3, 14, 14)
    shuffled = PatchShuffle(7)(x, generator())
    assert torch.equal(shuffled.flatten(1).sort().values, x.flatten(1).sort().values)
    assert not torch.equal(shuffled, x)
    noise = UniformNoise()(x, generator())
    assert noise.shape == x.shape and x.min() <= noise.min() and noise.max() <= x.max()
    mixed = Cutmix()(x, generator())
    share = (mixed != x).float().mean()
    assert 0.03 < share < 0.5
    for make in (PatchShuffle(7), UniformNoise(), Cutmix()):
        assert torch.equal(make(x, generator()), make(x, generator()))


def test_heads_on_a_classifier_begin_where_it_is():
    x = inputs(4, 2, 12, 12)
    model = Residual().eval()
    ensemble = RepulsiveHeads.from_classifier(model, x, num_heads=8)
    with torch.no_grad():
        out = ensemble.eval()(x)
        assert out.shape == (8, 4, 4)
        assert torch.allclose(out.mean(0), model(x), atol=0.3)
    assert predict(ensemble, x, method="ensemble").epistemic.max() > 0
    with pytest.raises(UnsupportedLayerError, match="not in a linear layer"):
        RepulsiveHeads.from_classifier(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), inputs(2, 3))


def test_repulsion_makes_the_heads_disagree_off_the_data_only(tmp_path):
    train = data()
    foreign = UniformNoise()(train[0], generator())
    spread = {}
    for beta in (0.0, 0.1):
        model = heads()
        history, used = fit_repulsive(
            model, train, epochs=8, lr=5e-3, batch_size=24, beta=beta, repulsion=UniformNoise(), n_repulsive=24
        )
        assert used == beta and history.accuracy[-1] > 0.85
        spread[beta] = float(predict(model, foreign, method="ensemble").epistemic.mean())
    assert spread[0.1] > 1.5 * spread[0.0]


def test_a_frozen_trunk_stays_and_the_training_goes_on_after_a_kill(tmp_path):
    train = data()

    def run(place, stop=False):
        def progress(facts):
            if stop and "seconds" in facts:
                raise KeyboardInterrupt

        model = heads()
        fit_repulsive(model, train, epochs=2, batch_size=40, freeze_trunk=True, repulsion=UniformNoise(),
                      checkpoint=tmp_path / place, progress=progress)  # fmt: skip
        return model

    before = heads().state_dict()
    whole = run("a").state_dict()
    assert torch.equal(whole["trunk.1.weight"], before["trunk.1.weight"])
    assert not torch.equal(whole["weight"], before["weight"])
    with pytest.raises(KeyboardInterrupt):
        run("b", stop=True)
    resumed = run("b")
    assert torch.equal(resumed.state_dict()["weight"], whole["weight"])
    assert all(p.requires_grad for p in resumed.parameters())


def test_beta_is_found():
    train = data()
    model = heads()
    _, beta = fit_repulsive(
        model, train, epochs=2, batch_size=40, beta="auto", validation=train, repulsion=UniformNoise()
    )
    assert beta in (0.3, 0.1, 0.05, 0.02, 0.01, 0.0)


def test_refused():
    with pytest.raises(ConfigError, match=r"num_heads=1.*at least 2"):
        RepulsiveHeads(nn.Flatten(), 4, 2, num_heads=1)
    with pytest.raises(ConfigError, match="2 members"):
        repulsion_loss(torch.zeros(1, 2, 3))
    with pytest.raises(ConfigError, match="patches of 7"):
        PatchShuffle(7)(inputs(2, 1, 8, 8), generator())
    train = data()
    with pytest.raises(ConfigError, match="give validation"):
        fit_repulsive(heads(), train, epochs=1, beta="auto", repulsion=UniformNoise())
    with pytest.raises(ConfigError, match="beta=-1"):
        fit_repulsive(heads(), train, epochs=1, beta=-1, repulsion=UniformNoise())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_repulsive(heads(), train, epochs=1, batch_size=60, repulsion=lambda x, g: x)
    assert any("under-fit" in str(w.message) and "2024" in str(w.message) for w in caught)
