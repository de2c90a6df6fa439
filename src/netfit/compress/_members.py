"""From layers to tensors: what exactly a group of channels touches, as plain data."""

import math
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from netfit.compress._axes import Slot, axis_of
from netfit.compress._coupling import Coupling
from netfit.compress._plan import ChannelGroup, Member


class Resolver:
    """Turns couplings of one network into channel groups.

    Args:
        model: the traced network.
        dims: channel axis of every bare parameter.
    """

    def __init__(self, model: nn.Module, dims: dict[str, int]) -> None:
        self._modules = dict(model.named_modules())
        self._order = {name: i for i, name in enumerate(self._modules)}
        self._dims = dims
        # Tied tensors have several names; members use the first, so that each is sliced once.
        self._names = {id(t): n for n, t in (*model.named_parameters(), *model.named_buffers())}

    def group(self, coupling: Coupling) -> ChannelGroup:
        """Resolve one coupling, and freeze it where a layer cannot follow."""
        members: list[Member] = []
        divisor, frozen = 1, coupling.frozen
        for (name, side), pairs in coupling.positions.items():
            channel, local = torch.tensor(pairs).unbind(1)
            module = self._modules.get(name)
            if module is None:
                members.append(Member(name, self._dims[name], channel, local))
                continue
            kind, axis = type(module).__name__, axis_of(module, side)
            if axis is None:
                frozen = frozen or f"{kind} {name!r} cannot be sliced"
                continue
            if axis.divisor > 1 and not (len(local) == coupling.size and torch.equal(channel, local)):
                frozen = frozen or f"{kind} {name!r} divides channels of several groups into blocks"
            divisor = math.lcm(divisor, axis.divisor)
            members.extend(self._member(module, name, slot, channel, local) for slot in axis.slots)
        if coupling.size <= divisor:
            frozen = frozen or ("one channel in each block" if divisor > 1 else "a single channel")
        layers = self._layers(name for name, side in coupling.positions if side == "out")
        return ChannelGroup(layers[0], coupling.size, tuple(members), layers, frozen, divisor)

    def _layers(self, names: Iterable[str]) -> tuple[str, ...]:
        layers = (name for name in names if isinstance(self._modules.get(name), _ConvNd | nn.Linear))
        return tuple(sorted(layers, key=self._order.__getitem__))

    def _member(self, module: nn.Module, layer: str, slot: Slot, channel: Tensor, local: Tensor) -> Member:
        value: Any = operator.attrgetter(slot.attr)(module)
        if slot.dim is None:
            return Member(f"{layer}.{slot.attr}".lstrip("."), None, channel, local)
        if slot.copies > 1:
            step = value.shape[slot.dim] // slot.copies
            local = (local[:, None] + torch.arange(slot.copies) * step).flatten()
            channel = channel.repeat_interleave(slot.copies)
        return Member(self._names[id(value)], slot.dim, channel, local, slot.blocks)
