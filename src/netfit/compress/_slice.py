"""Cut channels out of a network by a plan made before: tensors are selected, nothing is traced again."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netfit.compress._importance import importance
from netfit.compress._plan import ChannelGroup, ChannelPlan, Member
from netfit.errors import ConfigError, UnsupportedLayerError

__all__ = ["keep_best", "rebuild", "slice_model"]

Axes = dict[tuple[str, int | None, int], Tensor]
"""What to take: (name, dim, blocks) -> positions along the axis, in their new order."""


def slice_model(
    model: nn.Module,
    plan: ChannelPlan,
    keep: Mapping[str, int | Tensor],
    scores: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A smaller, dense copy of a network; the given one is untouched.

    Training flags, hooks, ``requires_grad`` and the names of the state dict stay; the tensors get smaller and the
    layers' attributes (``out_channels``, ``num_features``, ``groups``, ...) follow.

    Args:
        model: the network that was planned, or one of the same architecture.
        plan: from :func:`plan_channels`.
        keep: for each group to prune, the number of channels, or the int64 indices of the channels to keep.
        scores: importance of each channel (size,) for the groups given by number; group L1 norms when missing.

    Raises:
        ConfigError: unknown group, a number or an index out of range, or scores of a wrong shape.
        UnsupportedLayerError: the group is frozen; the message holds the reason.
    """
    picks: dict[str, Tensor] = {}
    known = dict(scores or {})
    for name, wanted in keep.items():
        group = plan[name]
        if not isinstance(wanted, Tensor):
            check_count(group, wanted)
        kept = _checked_indices(group, wanted) if isinstance(wanted, Tensor) else wanted
        if (len(kept) if isinstance(kept, Tensor) else kept) == group.size:
            continue
        if group.frozen is not None:
            raise UnsupportedLayerError(f"channel group {name!r} cannot be pruned: {group.frozen}")
        if not isinstance(kept, Tensor):
            known = known if name in known else known | importance(model, [group])
            kept = keep_best(group, kept, known[name])
        picks[name] = kept
    return rebuild(model, kept_axes(model, ((plan[name], pick) for name, pick in picks.items())))


def keep_best(group: ChannelGroup, count: int, scores: Tensor) -> Tensor:
    """Ascending indices of the highest scores, the same number from each block; ties go to the lower index."""
    if scores.shape != (group.size,) or not scores.isfinite().all():
        raise ConfigError(
            f"scores of group {group.name!r} must be {group.size} finite numbers, not {tuple(scores.shape)}"
        )
    order = scores.view(group.divisor, -1).argsort(dim=1, descending=True, stable=True)
    best = order[:, : count // group.divisor] + torch.arange(group.divisor)[:, None] * (group.size // group.divisor)
    return best.flatten().sort().values


def check_count(group: ChannelGroup, count: int) -> None:
    """Raise ConfigError, naming what is allowed, when the group cannot keep this number of channels."""
    if count < 1 or count > group.size or count % group.divisor:
        step = f" in steps of {group.divisor}" if group.divisor > 1 else ""
        lowest = group.divisor
        raise ConfigError(f"group {group.name!r} cannot keep {count} channels; allowed: {lowest} to {group.size}{step}")


def _checked_indices(group: ChannelGroup, indices: Tensor) -> Tensor:
    unique = indices.flatten().to(torch.int64).unique()
    if len(unique) == 0 or unique[0] < 0 or unique[-1] >= group.size:
        raise ConfigError(
            f"kept channels of group {group.name!r} must be indices from 0 to {group.size - 1}, at least one"
        )
    per_block = (unique // (group.size // group.divisor)).bincount(minlength=group.divisor)
    if (per_block != per_block[0]).any():
        raise ConfigError(f"each of the {group.divisor} blocks of group {group.name!r} must keep equally many channels")
    return unique


def kept_axes(model: nn.Module, picks: Iterable[tuple[ChannelGroup, Tensor]]) -> Axes:
    """Positions that stay, for every axis the picked groups touch; several groups may share one axis."""
    masks: Axes = {}
    for group, pick in picks:
        kept = torch.zeros(group.size, dtype=torch.bool)
        kept[pick] = True
        for member in group.members:
            key = (member.name, member.dim, member.blocks)
            mask = masks.setdefault(key, torch.ones(extent(model, member), dtype=torch.bool))
            mask[member.local] = kept[member.channel]
    return {key: mask.nonzero().flatten() for key, mask in masks.items()}


def extent(model: nn.Module, member: Member) -> int:
    """Number of positions along a member's axis."""
    value = _resolve(model, member.name)
    if member.dim is not None:
        return int(value.shape[member.dim]) * member.blocks
    return int(value[-1] if isinstance(value, tuple) else value)


def rebuild(model: nn.Module, axes: Axes, *, share: bool = False) -> nn.Module:
    """Copy a network with some axes replaced by a selection of their positions.

    Args:
        model: left untouched.
        axes: what to take.
        share: let tensors that nothing is taken from share their storage with the original (for throw-away copies).
    """
    taken = {id(_resolve(model, name)): list[tuple[int, int, Tensor]]() for name, dim, _ in axes if dim is not None}
    for (name, dim, blocks), index in axes.items():
        if dim is not None:
            taken[id(_resolve(model, name))].append((dim, blocks, index))
    # deepcopy looks into its memo first: with every tensor already there, no large weight is copied twice.
    memo: dict[int, Any] = {}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            new = _select(tensor.detach(), taken.get(id(tensor), []))
            if not share and id(tensor) not in taken:
                new = new.clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if is_parameter else new
    small = copy.deepcopy(model, memo)
    for (name, dim, _), index in axes.items():
        if dim is None:
            _resize(small, name, len(index))
    return small


def _select(tensor: Tensor, axes: list[tuple[int, int, Tensor]]) -> Tensor:
    if sorted((dim, blocks) for dim, blocks, _ in axes) == [(0, 1), (1, 1)]:
        # Outputs and inputs of a large weight in one pass: most of the time of slicing is memory traffic.
        rows, columns = (index.to(tensor.device) for _, _, index in sorted(axes, key=lambda axis: axis[0]))
        both = (rows[:, None] * tensor.shape[1] + columns).flatten()
        return tensor.flatten(0, 1).index_select(0, both).unflatten(0, (len(rows), len(columns)))
    for dim, blocks, index in axes:
        tensor = _take(tensor, dim, blocks, index)
    return tensor


def _take(tensor: Tensor, dim: int, blocks: int, index: Tensor) -> Tensor:
    index = index.to(tensor.device)
    if blocks == 1:
        return tensor.index_select(dim, index)
    # Weight of a grouped convolution: every block of axis 0 has its own choice of axis 1.
    per_block = tensor.unflatten(0, (blocks, -1))
    local = index.view(blocks, -1) - torch.arange(blocks, device=index.device)[:, None] * tensor.shape[1]
    rows = torch.arange(blocks, device=index.device)[:, None]
    return per_block[rows, :, local].transpose(1, 2).flatten(0, 1).contiguous()


def _resize(model: nn.Module, name: str, size: int) -> None:
    path, _, attr = name.rpartition(".")
    module = model.get_submodule(path)
    old = getattr(module, attr)
    setattr(module, attr, (*old[:-1], size) if isinstance(old, tuple) else size)
    if isinstance(module, nn.MultiheadAttention):
        module.head_dim = module.embed_dim // module.num_heads


def _resolve(model: nn.Module, name: str) -> Any:
    path, _, attr = name.rpartition(".")
    return getattr(model.get_submodule(path), attr)
