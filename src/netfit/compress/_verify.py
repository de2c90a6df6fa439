"""Does a plan tell the truth about a network? Two runs decide, whatever the layers are.

A group is right when its channels are interchangeable and removable: (1) renaming them, in every tensor of the
group, leaves the network's outputs as they were; (2) without some of them the network still runs and its outputs
keep their shapes. Unlike "zeroing equals removing", (1) also holds through LayerNorm, GroupNorm and attention.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from netfit.compress._plan import ChannelGroup, Member
from netfit.compress._slice import Axes, extent, kept_axes, rebuild

_TOLERANCE = 1e-3  # of the largest output: a wrong map moves outputs by tenths, another order of sums by 1e-6


class Check:
    """Compares changed copies of one network with the network itself.

    Args:
        model: in evaluation mode; left untouched.
        inputs: example inputs.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._model, self._inputs = model, inputs
        self._expected = self._run(model)

    def broken(self, groups: Sequence[ChannelGroup]) -> dict[str, str]:
        """Reasons, by name, why some of the groups cannot be pruned.

        All groups are tried at once and halves only after a failure: a sound network costs two runs, not two for
        each group, which keeps planning linear in the depth.
        """
        reasons: dict[str, str] = {}
        sound: list[ChannelGroup] = []

        def settle(some: Sequence[ChannelGroup]) -> None:
            reason = self._failure([*sound, *some]) if some else None
            if reason is None:
                sound.extend(some)
            elif len(some) == 1:
                reasons[some[0].name] = reason
            else:
                settle(some[: len(some) // 2])
                settle(some[len(some) // 2 :])

        settle(groups)
        return reasons

    def _failure(self, groups: Sequence[ChannelGroup]) -> str | None:
        outside = [m.name for g in groups for m in g.members if m.local.max() >= extent(self._model, m)]
        if outside:
            return f"torch-pruning maps its channels outside {outside[0]!r}"
        try:
            renamed = self._run(rebuild(self._model, _permuted_axes(self._model, groups), share=True))
            smaller = self._run(rebuild(self._model, kept_axes(self._model, map(_one_step, groups)), share=True))
        except Exception as e:
            return f"the network fails without one of its channels ({str(e).splitlines()[0] if str(e) else repr(e)})"
        if [t.shape for t in smaller] != [t.shape for t in self._expected]:
            return "network output"
        for was, now in zip(self._expected, renamed, strict=True):
            if was.shape != now.shape or not _close(was, now):
                return "its channels are not interchangeable"
        return None

    @torch.no_grad()
    def _run(self, model: nn.Module) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # networks that draw numbers even in evaluation mode draw the same ones
            return [t for t in tree_leaves(model(*self._inputs)) if isinstance(t, Tensor)]


def _close(was: Tensor, now: Tensor) -> bool:
    if not was.is_floating_point():
        return torch.equal(was, now)
    return bool((was - now).abs().max() <= _TOLERANCE * was.abs().max().clamp_min(1e-30)) if was.numel() else True


def _one_step(group: ChannelGroup) -> tuple[ChannelGroup, Tensor]:
    """All channels but the last of every block."""
    width = group.size // group.divisor
    channels = torch.arange(group.size)
    return group, channels[channels % width != width - 1]


def _permuted_axes(model: nn.Module, groups: Sequence[ChannelGroup]) -> Axes:
    axes: Axes = {}
    generator = torch.Generator().manual_seed(0)
    for group in groups:
        source = _permutation(group, generator)
        for member in group.members:
            if member.dim is not None:
                key = (member.name, member.dim, member.blocks)
                index = axes.setdefault(key, torch.arange(extent(model, member)))
                index[member.local] = _renamed(member, source)
    return axes


def _permutation(group: ChannelGroup, generator: torch.Generator) -> Tensor:
    """A random renaming within blocks, and only between channels that the same tensors hold."""
    counts = [torch.bincount(m.channel, minlength=group.size) for m in group.members]
    block = torch.arange(group.size) // (group.size // group.divisor)
    kinds = torch.stack([block, *counts]).unique(dim=1, return_inverse=True)[1]
    source = torch.arange(group.size)
    for kind in kinds.unique():
        same = (kinds == kind).nonzero().flatten()
        source[same] = same[torch.randperm(len(same), generator=generator)]
    return source


def _renamed(member: Member, source: Tensor) -> Tensor:
    """Positions to read, in place of ``member.local``, when channel c becomes what ``source[c]`` was."""
    count = torch.bincount(member.channel, minlength=len(source))
    start = count.cumsum(0) - count
    rank = torch.arange(len(member.channel)) - start[member.channel]
    return member.local[start[source[member.channel]] + rank]
