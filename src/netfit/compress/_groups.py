"""Find the channel groups of a network, once, and prove that each can be pruned."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from netfit.compress._coupling import Coupling, find_couplings
from netfit.compress._members import Resolver
from netfit.compress._plan import ChannelGroup, ChannelPlan
from netfit.compress._slice import rebuild
from netfit.compress._verify import Check
from netfit.errors import ConfigError, UnsupportedLayerError, did_you_mean

__all__ = ["plan_channels"]

# Operators that torch-pruning follows by rules of thumb; a broken group's reason names them.
_SUSPECTS = {"split": "channel split", "unbind": "unbind", "expand": "expand", "slice": "slice", "reshape": "reshape"}


def plan_channels(model: nn.Module, *example_inputs: Any, ignore: Sequence[str] = ()) -> ChannelPlan:
    """Find which channels of a network must be removed together.

    torch-pruning traces the network once; the groups become plain data with which :func:`slice_model` cuts any
    number of pruned networks. Every group is then tried, and frozen with a reason if its channels turn out not to
    be interchangeable or the network does not run without one of them. The group of the network's output is frozen.

    "DepGraph: Towards Any Structural Pruning", 2023.

    Args:
        model: left untouched.
        *example_inputs: tensors as the network takes them; a small batch will do.
        ignore: patterns (fnmatch) over names of convolutions and linear layers whose outputs stay as they are.

    Raises:
        ConfigError: the network does not run on the example inputs, or a pattern matches no layer.
        UnsupportedLayerError: the network cannot be traced.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> [(g.name, g.size, g.frozen) for g in plan_channels(net, torch.randn(1, 3, 8, 8))]
    [('0', 8, None), ('2', 4, 'network output')]
    """
    # A copy that shares the weights: checks need evaluation mode, tracing gradients too; the given model keeps its own.
    twin = rebuild(model, {}, share=True).eval()
    for p in twin.parameters():
        p.requires_grad_(p.is_floating_point())
    check = _checker(twin, example_inputs)
    couplings, dims = find_couplings(twin, example_inputs)
    order = {name: i for i, (name, _) in enumerate(twin.named_modules())}
    if not couplings and any(isinstance(m, _ConvNd | nn.Linear) for m in twin.modules()):
        raise UnsupportedLayerError(f"no layer of {type(model).__name__} reaches its outputs (are they detached?)")
    resolver = Resolver(twin, dims)
    pairs = [(resolver.group(c), c) for c in couplings]
    pairs.sort(key=lambda pair: order[pair[0].name])
    groups = _ignored([group for group, _ in pairs], ignore)
    broken = check.broken([g for g in groups if g.frozen is None])
    final = (
        replace(g, frozen=_reason(broken[g.name], c)) if g.name in broken else g
        for g, (_, c) in zip(groups, pairs, strict=True)
    )
    return ChannelPlan(tuple(final))


def _checker(model: nn.Module, inputs: tuple[Any, ...]) -> Check:
    try:
        return Check(model, inputs)
    except Exception as e:
        shapes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in inputs)
        first = str(e).splitlines()[0] if str(e) else repr(e)
        raise ConfigError(f"{type(model).__name__} does not run on example inputs of shape {shapes}: {first}") from e


def _reason(failure: str, coupling: Coupling) -> str:
    through = [text for operator, text in _SUSPECTS.items() if operator in coupling.operators]
    return f"{failure}; it runs through {' and '.join(through)}" if through else failure


def _ignored(groups: list[ChannelGroup], patterns: Sequence[str]) -> list[ChannelGroup]:
    layers = [layer for group in groups for layer in group.layers]
    for pattern in patterns:
        matched = {layer for layer in layers if fnmatchcase(layer, pattern)}
        if not matched:
            raise ConfigError(f"ignore pattern {pattern!r} matches no layer; {did_you_mean(pattern, layers)}")
        groups = [
            replace(g, frozen=f"ignored by pattern {pattern!r}") if g.frozen is None and matched & {*g.layers} else g
            for g in groups
        ]
    return groups
