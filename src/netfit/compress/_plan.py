"""The slicing plan: what one channel is, as plain data."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from netfit.errors import ConfigError, did_you_mean

__all__ = ["ChannelGroup", "ChannelPlan", "Member"]


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of one tensor, or one integer attribute, that follows the channels of a group.

    Attributes:
        name: name of a parameter, a buffer, or an attribute such as ``conv1.out_channels``.
        dim: axis of the tensor; None for an attribute.
        channel: int64 (n,), channel of the group that owns position ``local[i]``; ascending.
        local: int64 (n,), positions along the axis. A channel may own several (nine after flattening 3x3) or none.
        blocks: blocks of axis 0 that each hold their own part of ``dim`` (weight of a grouped convolution).
    """

    name: str
    dim: int | None
    channel: Tensor = field(repr=False)
    local: Tensor = field(repr=False)
    blocks: int = 1


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that can only be removed together in all the layers that share them.

    Attributes:
        name: the first of its layers.
        size: number of channels.
        members: every tensor axis and attribute that follows them.
        layers: convolutions and linear layers whose *output* belongs to the group, in module order.
        frozen: why the group cannot be pruned, or None.
        divisor: the channels form so many equal blocks, and each block keeps the same number (grouped
            convolution, GroupNorm, attention heads); the number kept is a multiple of it.
    """

    name: str
    size: int
    members: tuple[Member, ...] = field(repr=False)
    layers: tuple[str, ...]
    frozen: str | None = None
    divisor: int = 1

    def fit(self, fraction: float) -> int:
        """The allowed number of channels nearest to a fraction of the group; never zero.

        >>> ChannelGroup("conv", 10, (), ("conv",), divisor=2).fit(0.33)
        4
        """
        steps = self.size // self.divisor
        return self.divisor * min(steps, max(1, int(fraction * steps + 0.5)))


@dataclass(frozen=True, eq=False)
class ChannelPlan:
    """All channel groups of a network, in module order; made once by :func:`plan_channels`."""

    groups: tuple[ChannelGroup, ...]

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def free(self) -> tuple[ChannelGroup, ...]:
        """The groups that can be pruned."""
        return tuple(g for g in self.groups if g.frozen is None)

    def __getitem__(self, name: str) -> ChannelGroup:
        """The group of that name.

        Raises:
            ConfigError: no group has this name.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise ConfigError(f"no channel group is named {name!r}; {did_you_mean(name, (g.name for g in self.groups))}")

    def group_of(self, layer: str) -> ChannelGroup:
        """The group that holds the output channels of a convolution or linear layer.

        Raises:
            ConfigError: no group holds the output of this layer.
        """
        for group in self.groups:
            if layer in group.layers:
                return group
        layers = [name for group in self.groups for name in group.layers]
        raise ConfigError(f"no channel group holds the output of {layer!r}; {did_you_mean(layer, layers)}")
