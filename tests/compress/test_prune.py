"""Prune as a technique of a policy."""

import pytest
import torch

from netfit.compress import Prune, plan_channels
from netfit.errors import ConfigError, NetfitError, PolicyConflict, UnsupportedLayerError
from netfit.surgery import Policy, apply

from .zoo import build


def test_layers_are_named_and_groups_are_pruned() -> None:
    model, x = build("residual")
    small = apply(model, Policy({"a2": Prune(keep=5), "b1": Prune(sparsity=0.5), "short": Prune(keep=0.25)}), x)
    sizes = {n: small.get_submodule(n).out_channels for n in ("stem", "a1", "a2", "b1", "b2", "short")}
    assert sizes == {"stem": 5, "a1": 12, "a2": 5, "b1": 8, "b2": 4, "short": 4}
    assert small(x).shape == model(x).shape
    assert model.a2.out_channels == 8


def test_the_result_is_deterministic_and_a_policy_file_keeps_it() -> None:
    model, x = build("mobilenet")
    policy = Policy({"stem.0": Prune(keep=0.7, importance="bn"), "expand.0": Prune(keep=9), "squeeze": Prune(0.4)})
    again = Policy.from_toml(policy.to_toml())
    assert again == policy
    first, second = apply(model, policy, x), apply(model, again, x)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_shared_layers_and_wildcards() -> None:
    model, x = build("shared")
    small = apply(model, Policy({"[!f]*": Prune(sparsity=0.5)}), x)  # "again" is three sites
    assert (small.stem.out_channels, small.again.out_channels, small.tail.out_channels) == (4, 4, 5)
    assert small(x).shape == model(x).shape


def test_fractions_respect_blocks_and_leave_one_channel() -> None:
    model, x = build("grouped")
    assert apply(model, Policy({"stem": Prune(keep=0.6)}), x).stem.out_channels == 6
    assert apply(model, Policy({"stem": Prune(sparsity=0.99)}), x).stem.out_channels == 3
    model, x = build("residual")
    assert apply(model, Policy({"a1": Prune(sparsity=0.99)}), x).a1.out_channels == 1
    group = plan_channels(model, x)["a1"]
    assert [Prune(sparsity=s).count(group) for s in (0, 0.25, 0.5)] == [12, 9, 6]
    assert Prune(keep=1.0).count(group) == 12 and Prune(keep=1).count(group) == 1


@pytest.mark.parametrize(
    ("name", "policy", "error", "message"),
    [
        ("residual", {"stem": Prune(keep=4), "a2": Prune(keep=5)}, PolicyConflict, "'stem' .*'a2' .*group 'stem'"),
        ("residual", {"fc": Prune(keep=4)}, UnsupportedLayerError, "'fc' cannot be pruned: network output"),
        ("shuffle", {"stem": Prune(keep=4)}, UnsupportedLayerError, "channel split"),
        ("residual", {"a1": Prune(keep=13)}, ConfigError, "cannot keep 13 channels; allowed: 1 to 12"),
        ("grouped", {"stem": Prune(keep=4)}, ConfigError, "allowed: 3 to 12 in steps of 3"),
        ("residual", {"bn": Prune(keep=4)}, UnsupportedLayerError, "finds only batch_norm"),
    ],
)
def test_what_cannot_be_done_names_layer_group_and_reason(name, policy, error, message) -> None:
    model, x = build(name)
    with pytest.raises(error, match=message) as e:
        apply(model, Policy(policy), x)
    assert isinstance(e.value, NetfitError) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one"),
        ({"sparsity": 0.5, "keep": 3}, "exactly one"),
        ({"sparsity": 1.0}, "below 1, not 1.0"),
        ({"sparsity": -0.1}, "at least 0"),
        ({"keep": 0}, "from 1 up, not 0"),
        ({"keep": True}, "from 1 up"),
        ({"keep": 0.0}, "above 0 and at most 1"),
        ({"keep": 1.5}, "above 0 and at most 1"),
        ({"keep": 4, "importance": "l3"}, "unknown importance 'l3'; known: bn, l1, l2"),
    ],
)
def test_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Prune(**settings)
