"""How much a channel matters, by the classic criteria, summed over all layers that share it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from netfit.compress._plan import ChannelGroup, Member
from netfit.errors import ConfigError, UnsupportedLayerError, did_you_mean
from netfit.seeding import derive

__all__ = ["METHODS", "Importance", "importance"]

Method = Literal["l1", "l2", "bn", "taylor", "random"]
Importance = Method | Callable[[ChannelGroup, nn.Module], Tensor]
METHODS: tuple[str, ...] = ("l1", "l2", "bn", "taylor", "random")


def importance(
    model: nn.Module,
    groups: Iterable[ChannelGroup],
    method: Importance = "l1",
    *,
    batch: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Score the channels of each group; higher means more important.

    ``l1`` and ``l2`` add up, over the convolutions and linear layers that produce *or* consume a channel, the norm
    of its slice divided by the layer's mean: a layer counts by how it ranks the channels, not by its size.

    - ``l1``, ``l2``: sum of absolute (squared) weights: "Pruning Filters for Efficient ConvNets", 2017, extended
      to groups as in "DepGraph: Towards Any Structural Pruning", 2023.
    - ``bn``: absolute BatchNorm scales: "Learning Efficient Convolutional Networks through Network Slimming", 2017.
    - ``taylor``: change of the loss, to first order, when the channel is silenced: |sum of weight x gradient| over the
      weights that *consume* it (before a BatchNorm, the sum over those that produce it is always zero):
      "Importance Estimation for Neural Network Pruning", 2019.
    - ``random``: uniform numbers that depend on the seed and the group's name only.

    Args:
        model: the planned network; only read.
        groups: a plan, or some of its groups; frozen ones are left out.
        method: one of the names above, or ``f(group, model) -> Tensor`` of shape (size,).
        batch: inputs (n, ...) and labels int64 (n,) for ``taylor``.
        seed: for ``random``.

    Returns:
        Group name -> float32 (size,).

    Raises:
        ConfigError: unknown method, no batch for ``taylor``, or a callable that returns a wrong shape.
        UnsupportedLayerError: ``bn`` on a group without BatchNorm.
    """
    groups = [g for g in groups if g.frozen is None]
    if callable(method):
        return {g.name: _checked(method(g, model), g) for g in groups}
    if method == "random":
        return {g.name: _random(g, seed) for g in groups}
    if method == "bn":
        return {g.name: _scales(g, model) for g in groups}
    if method == "taylor":
        if batch is None:
            raise ConfigError("importance 'taylor' needs a batch of inputs and labels")
        products = _weight_times_gradient(model, *batch)
        return {g.name: _loss_change(g, model, products) for g in groups}
    if method in ("l1", "l2"):
        return {g.name: _norms(g, model, power=1 if method == "l1" else 2) for g in groups}
    raise ConfigError(f"unknown importance {method!r}; {did_you_mean(str(method), METHODS)}")


def _weights(group: ChannelGroup, model: nn.Module) -> Iterator[Member]:
    """The members that are weights of convolutions and linear layers."""
    for member in group.members:
        path, _, attr = member.name.rpartition(".")
        if attr == "weight" and isinstance(model.get_submodule(path), _ConvNd | nn.Linear):
            yield member


@torch.no_grad()
def _norms(group: ChannelGroup, model: nn.Module, power: int) -> Tensor:
    total = torch.zeros(group.size)
    for member in _weights(group, model):
        score = _per_channel(model.get_parameter(member.name).abs().pow(power), member, group)
        mean = score[member.channel.unique()].mean()
        total += score / mean if mean > 0 else score
    return total


def _loss_change(group: ChannelGroup, model: nn.Module, products: Mapping[str, Tensor]) -> Tensor:
    total = torch.zeros(group.size)
    for member in group.members:
        layer = model.get_submodule(member.name.rpartition(".")[0])
        transposed = isinstance(layer, _ConvNd) and layer.transposed
        consumes = isinstance(layer, _ConvNd | nn.Linear | nn.RNNBase | nn.MultiheadAttention)
        if consumes and member.name in products and products[member.name].ndim > 1:
            depthwise = isinstance(layer, _ConvNd) and layer.groups == layer.in_channels > 1
            if member.dim == (0 if transposed else 1) and not depthwise:
                total += _per_channel(products[member.name], member, group)
    return total.abs()


def _per_channel(tensor: Tensor, member: Member, group: ChannelGroup) -> Tensor:
    values = _per_position(tensor.detach().float().cpu(), member)
    return torch.zeros(group.size).index_add_(0, member.channel, values[member.local])


def _per_position(tensor: Tensor, member: Member) -> Tensor:
    """Sum over everything but the member's axis (and, in grouped convolutions, the block)."""
    assert member.dim is not None
    if member.blocks > 1:
        tensor = tensor.unflatten(0, (member.blocks, -1)).transpose(1, 2).flatten(0, 1)
        return tensor.flatten(1).sum(1)
    return tensor.movedim(member.dim, 0).flatten(1).sum(1)


def _scales(group: ChannelGroup, model: nn.Module) -> Tensor:
    total, found = torch.zeros(group.size), False
    for member in group.members:
        path, _, attr = member.name.rpartition(".")
        if attr == "weight" and isinstance(model.get_submodule(path), _BatchNorm):
            scale = model.get_parameter(member.name).detach().float().cpu().abs()
            total.index_add_(0, member.channel, scale[member.local])
            found = True
    if not found:
        raise UnsupportedLayerError(f"importance 'bn': group {group.name!r} has no BatchNorm; use 'l1'")
    return total


def _weight_times_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    # functional_call on detached leaves: the model's own .grad fields and requires_grad flags stay as they are.
    with torch.enable_grad():
        leaves = {n: p.detach().requires_grad_(p.is_floating_point()) for n, p in model.named_parameters()}
        loss = F.cross_entropy(torch.func.functional_call(model, leaves, (x,)), y)
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    zero = torch.zeros(())
    return {n: p.detach() * (zero if g is None else g) for (n, p), g in zip(leaves.items(), gradients, strict=True)}


def _random(group: ChannelGroup, seed: int) -> Tensor:
    return torch.rand(group.size, generator=torch.Generator().manual_seed(derive(seed, group.name)))


def _checked(scores: Tensor, group: ChannelGroup) -> Tensor:
    if tuple(scores.shape) != (group.size,):
        raise ConfigError(
            f"the importance function returned {tuple(scores.shape)} for group {group.name!r}, not ({group.size},)"
        )
    return scores.detach().float().cpu()
