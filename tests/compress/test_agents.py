"""Galen's agents: what they see, what their actions mean, how they learn, and that a kill changes nothing."""

import json
from math import erf

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netfit.compress import search_space
from netfit.compress.agents import Features, measure_damage
from netfit.compress.agents._actions import channels, precision, representative_precision, representative_sparsity
from netfit.compress.agents._ddpg import Ddpg, noisy
from netfit.compress.agents._replay import Normaliser, Replay

from .toys import BitOps


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


SENSED = [i / 100 for i in range(10)]
DAMAGE = {"prune": {"a": SENSED, "b": [2 * s for s in SENSED]}, "int8": {"a": [0.1], "b": [0.2], "fc": [0.3]}}
A, B, FC = 4 * 16 * 9, 8 * 16 * 4 * 9, 24  # multiply-accumulates of one 8x8 image


@pytest.fixture(scope="module")
def space():
    return search_space(Three(), torch.zeros(1, 1, 8, 8), target=BitOps())


@pytest.fixture(scope="module")
def features(space):
    return Features(space, DAMAGE)


def test_state_of_the_prune_agent(space, features):
    first = features.state("prune", 0, space.candidate({}), [])
    assert first == [0, A, 4, 1, 3, 2, 0, (B + FC) / (A + B + FC), *SENSED, 0]
    half = space.candidate({"keep:a": 2})
    net = A / 2 + B / 2 + FC
    assert features.state("prune", 1, half, []) == pytest.approx(
        [1, B / 2, 8, 2, 3, 1, A / 2 / net, FC / net, *DAMAGE["prune"]["b"], 0]
    )
    assert features.state("prune", 0, half, [])[-1] == 0.5


def test_state_of_the_quantize_agent(space, features):
    seen = features.state("quantize", 1, space.candidate({"precision:a": "int8"}), [0.3, 0.7])
    net = A * 64 + (B + FC) * 1024
    expected = [1, B * 1024, 8, 4, 3, 1, A * 64 / net, FC * 1024 / net, *[1000] * 20, 0.2, 0, 0.3, 0.7]
    assert seen == pytest.approx(expected) and len(seen) == 32


def test_state_of_the_joint_agent(space, features):
    candidate = space.candidate({"keep:a": 2, "precision:a": "int8", "keep:b": 2, "precision:b": "int8"})
    seen = features.state("joint", 2, candidate, [0.5, 0.6, 0.7])
    a, b, fc = A / 2, B / 8, FC / 4
    macs, bops = a + b + fc, (a + b) * 64 + fc * 1024
    layer = [2, fc, fc * 1024, 3, 2, 1, 1, 6]
    around = [(a + b) / macs, 0, (a + b) * 64 / bops, 0]
    # the last layer gives the classes: no group of channels starts there
    assert seen == pytest.approx([*layer, *around, *[1000] * 30, 0.3, 0, 0.5, 0.6, 0.7])
    assert len(seen) == Features.SIZES["joint"] == 47


def test_a_grouped_convolution_shrinks_in_proportion():
    net = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    space = search_space(net, torch.zeros(1, 1, 6, 6), target=BitOps())
    features = Features(space, {"prune": {}, "int8": {}})
    depthwise = [features.state("prune", 1, c, []) for c in (space.candidate({}), space.uniform(0.5))]
    assert depthwise[0][1:4] == [8 * 16 * 9, 8, 1] and depthwise[1][1:4] == [4 * 16 * 9, 4, 1]


def test_damage_is_measured_where_an_agent_acts_and_fits_in_json(space):
    torch.manual_seed(0)
    net = Three()
    for p in net.parameters():
        p.data *= 3  # the predictions of a fresh network hardly depend on anything
    found = measure_damage(net, torch.randn(32, 1, 8, 8), space, "joint")
    assert set(found["prune"]) == {"a", "b"} and set(found["int8"]) == {"a", "b", "fc"}
    assert all(len(v) == 10 and v[0] == pytest.approx(0, abs=1e-6) and v[-1] > 1e-3 for v in found["prune"].values())
    assert json.loads(json.dumps(found)) == found
    x = torch.randn(8, 1, 8, 8)
    assert not measure_damage(Three(), x, space, "quantize")["prune"]
    assert not measure_damage(Three(), x, space, "prune")["int8"]


@given(st.floats(0, 1), st.integers(1, 40), st.sampled_from([1, 4, 32]))
def test_channels_follow_the_published_formula(sparsity, blocks, rounding):
    full = blocks * rounding
    expected = int(np.clip(np.floor((1 - sparsity) * full / rounding) + 1, 1, full / rounding) * rounding)
    assert channels(sparsity, range(rounding, full + 1, rounding), rounding) == expected


@given(st.floats(0, 1), st.sets(st.integers(1, 64), min_size=1, max_size=8))
def test_channels_are_the_allowed_count_nearest_to_the_formula(sparsity, allowed):
    steps = sorted(allowed)
    wanted = channels(sparsity, range(1, steps[-1] + 1))
    kept = channels(sparsity, steps)
    assert kept in steps and all(abs(kept - wanted) <= abs(n - wanted) for n in steps)
    assert all(channels(representative_sparsity(n, steps[-1]), steps) == n for n in steps)


@pytest.mark.parametrize(
    ("activation", "weight", "expected"),
    [(0.2, 0.2, 0), (0.21, 0.0, 1), (0.0, 0.5, 1), (0.51, 0.0, -1), (0.0, 1.0, -1)],
)
@pytest.mark.parametrize("offered", [("fp32", "int8"), ("fp32", "int8", "w4a8")])
def test_the_stronger_action_decides_the_precision(activation, weight, expected, offered):
    assert precision(activation, weight, offered) == offered[expected]


@pytest.mark.parametrize("offered", [("fp32",), ("fp32", "int8"), ("fp32", "bf16"), ("fp32", "int8", "w4a8")])
def test_every_offered_precision_that_an_action_can_mean_has_one(offered):
    for chosen in offered:
        action = representative_precision(chosen, offered)
        assert precision(action, action, offered) == chosen
    assert precision(0.3, 0.3, ("fp32", "bf16")) == "fp32"  # int8 is asked for and not there


def test_noise_is_the_truncated_normal_distribution():
    mean, sigma = 0.15, 0.3
    drawn = noisy(torch.full((4000,), mean), sigma, torch.Generator().manual_seed(0)).numpy()
    assert drawn.min() >= 0 and drawn.max() <= 1
    below = np.array([1 + erf((v - mean) / sigma / 2**0.5) for v in [0, *np.sort(drawn), 1]]) / 2
    share = (below[1:-1] - below[0]) / (below[-1] - below[0])
    assert np.abs(share - np.linspace(0, 1, 4000)).max() < 1.63 / 4000**0.5  # Kolmogorov-Smirnov, 1 %
    still = noisy(torch.tensor([0.0, 0.4, 1.0]), 1e-8, torch.Generator().manual_seed(0))
    assert still.tolist() == pytest.approx([0, 0.4, 1], abs=1e-6)


def test_states_are_standardised_by_what_was_seen():
    states = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double() * 7 + 3
    states[:, 2] = 1000.0
    normaliser = Normaliser(3)
    for state in states:
        normaliser.add(state)
    past = states.numpy()
    expected = (past[7, :2] - past[:, :2].mean(0)) / past[:, :2].std(0)
    assert normaliser(states[7])[:2].numpy() == pytest.approx(expected) and normaliser(states[7])[2] == 0
    copy = normaliser.copy()
    copy.add(states[0])
    assert normaliser.count == 50 and torch.equal(normaliser(states[7])[:2], normaliser.copy()(states[7])[:2])


def test_replay_drops_the_very_first_step_and_ends_without_a_terminal_state():
    replay = Replay(1, 2)
    replay.add(torch.tensor([[0.0], [1.0], [2.0]]).double(), torch.rand(3, 2).double(), 0.5)
    assert len(replay) == 2
    replay.add(torch.tensor([[3.0], [4.0]]).double(), torch.rand(2, 2).double(), -1.0)
    state, action, reward, following = replay.sample(4, torch.Generator().manual_seed(0))
    found = sorted(zip(state[:, 0].tolist(), reward.tolist(), following[:, 0].tolist(), strict=True))
    assert found == [(1, 0.5, 2), (2, 0.5, 2), (3, -1, 4), (4, -1, 4)] and action.shape == (4, 2)
    replay.add(torch.arange(2500).double()[:, None], torch.zeros(2500, 2).double(), 0.0)
    assert len(replay) == 2000 and replay.tensors()["replay/state"][0] == 500


def batch(seed, features=5, actions=2):
    g = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(16, features, generator=g), torch.rand(16, actions, generator=g), torch.rand(16, generator=g)]
    return (*drawn, torch.rand(16, features, generator=g))


def test_an_update_descends_on_the_published_targets():
    ddpg = Ddpg(5, 2, seed=3)
    state, action, reward, following = batch(0)
    before = ddpg.tensors()
    with torch.no_grad():
        ahead = ddpg.slow_critic(following, ddpg.slow_actor(following))
        goal = (reward - reward.mean())[:, None] + 0.99 * ahead
    loss = ((ddpg.critic(state, action) - goal) ** 2).mean()
    slope = torch.autograd.grad(loss, ddpg.critic.out.bias)[0]
    ddpg.update(state, action, reward, following)
    assert ddpg.mean_reward == pytest.approx(float(reward.mean()))
    # Adam's first step is the rate, against the sign of the slope (and of the decay)
    old, new = before["critic/out.bias"], ddpg.critic.out.bias.detach()
    assert torch.allclose(new - old, -1e-3 * (slope + 1e-2 * old).sign(), atol=1e-6)
    assert torch.allclose(ddpg.slow_critic.out.bias, old + 1e-3 * (new - old), atol=1e-9)
    ddpg.update(state, action, reward + 1, following)
    assert ddpg.mean_reward == pytest.approx(float(reward.mean()) + 0.5)


def test_networks_go_on_after_storing_exactly_as_without():
    one, other = Ddpg(5, 2, seed=1), Ddpg(5, 2, seed=2)
    one.update(*batch(0))
    other.load(one.tensors())
    other.mean_reward = one.mean_reward
    for ddpg in (one, other):
        ddpg.update(*batch(1))
    assert all(torch.equal(v, other.tensors()[k]) for k, v in one.tensors().items())
    assert not torch.equal(one.act(torch.ones(5)), Ddpg(5, 2, seed=1).act(torch.ones(5)))
    assert torch.equal(Ddpg(5, 2, seed=1).act(torch.ones(5)), Ddpg(5, 2, seed=1).act(torch.ones(5)))
