"""Channel scores: what each criterion sees, and how bad requests are answered."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netfit.compress import importance, plan_channels, slice_model
from netfit.errors import ConfigError, UnsupportedLayerError

from .zoo import ZOO, build


@pytest.mark.parametrize("method", ["l1", "l2", "random", "taylor"])
@pytest.mark.parametrize("name", ZOO)
def test_every_free_group_of_every_network_gets_finite_scores(name: str, method: str) -> None:
    model, x = build(name)
    plan = plan_channels(model, x)
    model.requires_grad_(False)
    batch = (x, torch.zeros(len(x), dtype=torch.int64))
    if name == "unet":
        batch = (x, torch.zeros(2, 8, 8, dtype=torch.int64))
    scores = importance(model, plan, method, batch=batch)
    assert {g.name: (g.size,) for g in plan.free} == {n: tuple(s.shape) for n, s in scores.items()}
    assert all(s.isfinite().all() and (s >= 0).all() for s in scores.values())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("method", ["l1", "l2"])
def test_norms_add_what_produces_and_what_consumes_a_channel(method: str) -> None:
    model, x = build("vgg")
    group = plan_channels(model, x)["4"]
    power = 1 if method == "l1" else 2
    produced = model[4].weight.detach().abs().pow(power).sum((1, 2, 3))
    consumed = model[8].weight.detach().abs().pow(power).view(20, 12, 9).sum((0, 2))
    expected = produced / produced.mean() + consumed / consumed.mean()
    torch.testing.assert_close(importance(model, [group], method)["4"], expected)


def test_grouped_convolutions_count_each_input_channel_once() -> None:
    model, x = build("grouped")
    group = plan_channels(model, x)["stem"]
    produced = model.stem.weight.detach().abs().sum((1, 2, 3))
    consumed = model.wide.weight.detach().abs().view(3, 6, 4, 9).sum((1, 3)).flatten()
    expected = produced / produced.mean() + consumed / consumed.mean()
    torch.testing.assert_close(importance(model, [group])["stem"], expected)


def test_bn_adds_the_scales() -> None:
    model, x = build("mobilenet")
    plan = plan_channels(model, x)
    expected = model.expand[1].weight.abs() + model.depth[1].weight.abs()
    torch.testing.assert_close(importance(model, [plan["expand.0"]], "bn")["expand.0"], expected.detach())
    with pytest.raises(UnsupportedLayerError, match="group 'squeeze' has no BatchNorm"):
        importance(model, plan, "bn")


@pytest.mark.parametrize(
    ("name", "group"), [("keyword", "c2"), ("residual", "stem"), ("grouped", "wide"), ("vgg", "4")]
)
def test_taylor_is_the_derivative_of_the_loss_along_silencing_a_channel(name: str, group: str) -> None:
    model, x = build(name)
    model, x = model.double(), x.double()
    y = torch.tensor([1, 3])
    found = plan_channels(model, x)[group]
    scores = importance(model, [found], "taylor", batch=(x, y))[group]
    readers = {"keyword": ["c3", "fc"], "residual": ["a1", "b1", "short"], "grouped": ["up"], "vgg": ["8"]}[name]
    step = 1e-6
    for channel in (0, found.size - 1):
        changed = copy.deepcopy(model)
        for member in found.members:
            layer, _, attr = member.name.rpartition(".")
            transposed = isinstance(model.get_submodule(layer), nn.ConvTranspose2d)
            if layer in readers and attr == "weight" and member.dim == (0 if transposed else 1):
                weight = changed.get_parameter(member.name).data
                weight.movedim(member.dim, 0)[member.local[member.channel == channel]] *= 1 - step
        slope = (F.cross_entropy(changed(x), y) - F.cross_entropy(model(x), y)).item() / step
        assert scores[channel].item() == pytest.approx(abs(slope), rel=1e-3, abs=1e-6)


def test_random_depends_on_seed_and_group_only() -> None:
    model, x = build("residual")
    plan = plan_channels(model, x)
    a, b = importance(model, plan, "random", seed=1), importance(model, plan.free[:1], "random", seed=1)
    assert torch.equal(a["stem"], b["stem"])
    assert not torch.equal(a["stem"], importance(model, plan, "random", seed=2)["stem"])
    assert not torch.equal(a["b1"], a["b2"])


def test_own_function_and_bad_requests() -> None:
    model, x = build("residual")
    plan = plan_channels(model, x)
    scores = importance(model, plan.free, lambda group, net: torch.arange(group.size))
    small = slice_model(model, plan, {"a1": 3}, scores)
    assert torch.equal(small.a1.weight, model.a1.weight[9:])
    with pytest.raises(ConfigError, match=r"returned \(2,\) for group 'stem', not \(8,\)"):
        importance(model, plan.free, lambda group, net: torch.ones(2))
    with pytest.raises(ConfigError, match="needs a batch"):
        importance(model, plan, "taylor")
    with pytest.raises(ConfigError, match="unknown importance 'l3'"):
        importance(model, plan, "l3")
