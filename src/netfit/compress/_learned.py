"""Learned structured pruning: training decides which channels a network can do without.

Every channel gets a gate that multiplies the weights which read it. A gate below a threshold reads as zero in the
forward pass while its gradient passes unchanged, and all gates decay: those that the loss does not hold up fall below
the threshold, and may come back. From "Parameterized Structured Pruning for Deep Neural Networks" (2019).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from ._plan import Member
from ._slice import extent
from ._space import Candidate, SearchSpace

__all__ = ["gated", "ranked_candidate", "ungated"]

THRESHOLD = 0.1
DECAY = 2e-3  # of every gate, added to its gradient: the training loop's own decay spares vectors


class _Threshold(torch.autograd.Function):
    """``g`` where it exceeds the threshold, else 0; the gradient passes straight through and pulls towards 0."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor) -> Tensor:
        ctx.save_for_backward(gate)
        return gate * (gate.abs() > THRESHOLD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate,) = ctx.saved_tensors
        return grads[0] + DECAY * gate.sign()


class _Gate(nn.Module):
    """Multiplies the inputs of one weight by the gates of the channels they read."""

    def __init__(self, gate: nn.Parameter, member: Member, size: int, dims: int) -> None:
        super().__init__()
        self.gate = gate
        owner = torch.full((size,), -1)
        owner[member.local] = member.channel
        self.register_buffer("owner", owner, persistent=False)
        self.shape = [1, size, *[1] * (dims - 2)]

    def forward(self, weight: Tensor) -> Tensor:
        owner: Tensor = self.owner  # type: ignore[assignment]  # a buffer
        values = torch.where(owner >= 0, _Threshold.apply(self.gate)[owner.clamp(min=0)], 1.0)
        return weight * values.view(self.shape)


def gated(model: nn.Module, space: SearchSpace) -> dict[str, nn.Parameter]:
    """Put a gate on every prunable channel of a network, in place.

    Args:
        model: the trained network.
        space: its groups; those without a layer that reads their channels one by one get no gate.

    Returns:
        Group name -> gates (size,), all one.
    """
    gates: dict[str, nn.Parameter] = {}
    for group in space.plan.free:
        readers = [m for m in group.members if _reads(model, m)]
        if not readers or len(space.steps[group.name]) < 2:
            continue
        gates[group.name] = gate = nn.Parameter(torch.ones(group.size))
        for member in readers:
            path, _, attr = member.name.rpartition(".")
            module = model.get_submodule(path)
            size, dims = extent(model, member), getattr(module, attr).dim()
            parametrize.register_parametrization(module, attr, _Gate(gate, member, size, dims))
    return gates


def ungated(model: nn.Module) -> nn.Module:
    """Multiply the gates into the weights and take them off, in place; the network computes what it did."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return model


def ranked_candidate(space: SearchSpace, gates: Mapping[str, Tensor], fraction: float) -> Candidate:
    """Keep this fraction of all gated channels, those with the largest gates, at the steps the target likes."""
    full = space.uniform(1.0)
    ranked = torch.cat([g.abs() for g in gates.values()]).sort(descending=True).values
    bound = ranked[min(len(ranked) - 1, int(fraction * len(ranked)))]
    keep = dict(full.keep)
    for name, gate in gates.items():
        count = int((gate.abs() >= bound).sum())
        keep[name] = min(space.steps[name], key=lambda n: (abs(n - count), n))
    return Candidate(keep, full.precision)


def _reads(model: nn.Module, member: Member) -> bool:
    """Whether a member is the input axis of a convolution's or linear layer's own weight."""
    path, _, attr = member.name.rpartition(".")
    if member.dim != 1 or member.blocks != 1 or attr != "weight":
        return False
    module = model.get_submodule(path)
    return isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and not module.transposed)
