"""A sliced network computes what the original computes with the removed channels zeroed."""

import copy
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netfit.compress import ChannelGroup, ChannelPlan, plan_channels, slice_model
from netfit.errors import ConfigError

from .zoo import ZOO, build

_PLANS = {name: (*build(name), plan_channels(*build(name))) for name in ZOO}


def normalised(model: nn.Module, group: ChannelGroup) -> bool:
    """Whether a normalisation over channels sees the group: there, fewer channels are not channels of zeros."""
    modules = dict(model.named_modules())
    kinds = nn.LayerNorm | nn.GroupNorm | nn.MultiheadAttention
    return any(isinstance(modules.get(m.name.rpartition(".")[0]), kinds) for m in group.members)


def zeroed(model: nn.Module, plan: ChannelPlan, keep: Mapping[str, Tensor]) -> nn.Module:
    """The original with zeros in the weights and biases of the removed channels; statistics stay."""
    masked = copy.deepcopy(model)
    tensors = {**dict(masked.named_parameters()), **dict(masked.named_buffers())}
    with torch.no_grad():
        for name, kept in keep.items():
            removed = torch.ones(plan[name].size, dtype=torch.bool)
            removed[kept] = False
            for m in plan[name].members:
                if m.dim is None or m.blocks > 1 or m.name.endswith(("running_mean", "running_var")):
                    continue
                tensors[m.name].movedim(m.dim, 0)[m.local[removed[m.channel]]] = 0
    return masked


def balanced(group: ChannelGroup, order: Tensor, count: int) -> Tensor:
    """The first ``count`` channels of a random order, equally many from each block."""
    width = group.size // group.divisor
    blocks = [order[order // width == b][: count // group.divisor] for b in range(group.divisor)]
    return torch.cat(blocks).sort().values


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ZOO)), st.integers(0, 2**31), st.data())
def test_slicing_equals_zeroing(name: str, seed: int, data: st.DataObject) -> None:
    model, x, plan = _PLANS[name]
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for group in plan.free:
        if not normalised(model, group):
            count = group.divisor * data.draw(st.integers(1, group.size // group.divisor))
            keep[group.name] = balanced(group, torch.randperm(group.size, generator=generator), count)
    small = slice_model(model, plan, keep)
    with torch.no_grad():
        expected = zeroed(model, plan, keep)(x)
        torch.testing.assert_close(small(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ZOO)
def test_every_free_group_loses_a_third_and_all_shapes_follow(name: str) -> None:
    model, x, plan = _PLANS[name]
    keep = {g.name: g.fit(0.7) for g in plan.free}
    small = slice_model(model, plan, keep)
    assert small(x).shape == model(x).shape
    assert list(small.state_dict()) == list(model.state_dict())
    for group in plan.free:
        for layer in group.layers:
            module, before = small.get_submodule(layer), model.get_submodule(layer)
            size = "out_features" if isinstance(module, nn.Linear) else "out_channels"
            assert getattr(module, size) < getattr(before, size)
    assert_attributes_match(small)
    again = plan_channels(small, x)  # a sliced network is a network like any other
    assert {g.name: g.size for g in again if g.frozen is None or g.size > 1} == {
        g.name: keep.get(g.name, g.size) for g in plan if keep.get(g.name, g.size) > 1
    }


def assert_attributes_match(model: nn.Module) -> None:
    for m in model.modules():
        if isinstance(m, nn.Linear):
            assert m.weight.shape == (m.out_features, m.in_features)
        elif isinstance(m, nn.Conv1d | nn.Conv2d):
            assert m.weight.shape[:2] == (m.out_channels, m.in_channels // m.groups)
        elif isinstance(m, nn.ConvTranspose2d):
            assert m.weight.shape[:2] == (m.in_channels, m.out_channels // m.groups)
        elif isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            assert m.weight.shape == m.bias.shape == m.running_mean.shape == m.running_var.shape == (m.num_features,)
        elif isinstance(m, nn.LayerNorm):
            assert m.weight.shape == tuple(m.normalized_shape)
        elif isinstance(m, nn.GroupNorm):
            assert m.weight.shape == (m.num_channels,)
        elif isinstance(m, nn.MultiheadAttention):
            assert m.in_proj_weight.shape == (3 * m.embed_dim, m.embed_dim) and m.head_dim * m.num_heads == m.embed_dim


def test_keeping_everything_copies_the_network_bit_for_bit() -> None:
    for model, x, plan in _PLANS.values():
        same = slice_model(model, plan, {g.name: g.size for g in plan})
        assert torch.equal(same(x), model(x))
        first = next(iter(same.parameters()))
        assert first.data_ptr() not in {p.data_ptr() for p in model.parameters()}


def test_flags_hooks_and_the_original_survive() -> None:
    model, x = build("residual")
    plan = plan_channels(model, x)
    calls = []
    model.a1.register_forward_hook(lambda m, i, o: calls.append(o.shape[1]))
    model.a1.train()
    model.b1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    small = slice_model(model, plan, {"a1": 5, "b1": torch.tensor([9, 2, 2])})
    small(x)
    assert calls == [5]
    assert small.a1.training and not small.stem.training
    assert not small.b1.weight.requires_grad and small.b2.weight.requires_grad
    assert torch.equal(small.b1.weight, model.b1.weight[[2, 9]])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_highest_scores_stay_and_ties_go_to_the_lower_index() -> None:
    model, x, plan = _PLANS["residual"]
    scores = torch.tensor([0.0, 3, 1, 3, 3, 0, 0, 0, 2, 0, 0, 0])
    small = slice_model(model, plan, {"a1": 2}, {"a1": scores})
    assert torch.equal(small.a1.weight, model.a1.weight[[1, 3]])
    assert small(x).shape == model(x).shape


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        ("residual", {"a1": 0}, "'a1' cannot keep 0 channels; allowed: 1 to 12"),
        ("residual", {"a1": 13}, "'a1' cannot keep 13 channels; allowed: 1 to 12"),
        ("grouped", {"stem": 5}, "'stem' cannot keep 5 channels; allowed: 3 to 12 in steps of 3"),
        ("residual", {"a1": torch.tensor([0, 12])}, "indices from 0 to 11"),
        ("residual", {"a1": torch.tensor([], dtype=torch.long)}, "at least one"),
        ("grouped", {"stem": torch.tensor([0, 1, 4])}, "each of the 3 blocks"),
        ("residual", {"stam": 4}, "no channel group is named 'stam'; did you mean 'stem'"),
    ],
)
def test_a_keep_that_cannot_be_kept_names_what_can(name: str, keep: dict, message: str) -> None:
    model, _, plan = _PLANS[name]
    with pytest.raises(ConfigError, match=message):
        slice_model(model, plan, keep)


def test_scores_must_fit_the_group() -> None:
    model, _, plan = _PLANS["residual"]
    for bad in (torch.ones(3), torch.full((12,), float("nan"))):
        with pytest.raises(ConfigError, match="scores of group 'a1' must be 12 finite numbers"):
            slice_model(model, plan, {"a1": 4}, {"a1": bad})
