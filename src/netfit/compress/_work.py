"""What every layer of a candidate has to do, from the space alone: no network is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from netfit.workload import Op

from ._space import Candidate, SearchSpace

__all__ = ["Work"]


@dataclass(frozen=True)
class _Axis:
    """One axis of a weight: its length, and for each group how many of its positions one channel owns."""

    size: int
    owners: tuple[tuple[str, int, float], ...]  # group, channels, positions a channel

    def kept(self, keep: Mapping[str, int]) -> float:
        return self.size - sum((full - keep[g]) * positions for g, full, positions in self.owners if g in keep)


class Work:
    """Sizes and multiply-accumulates of the layers of a candidate.

    Args:
        space: groups, layers and operators of the uncompressed network.

    Attributes:
        layers: layers with weights, in execution order.
        full: outputs and inputs of each layer's weight in the uncompressed network.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self.layers: list[Op] = space.layers()
        self._axes = [(self._axis(op, 0), self._axis(op, 1)) for op in self.layers]
        self._macs = [sum(op.macs for op in space.workload if op.name == layer.name) for layer in self.layers]
        self.full = [(float(out.size), float(inner.size)) for out, inner in self._axes]

    def sizes(self, candidate: Candidate) -> list[tuple[float, float]]:
        """Outputs and inputs of each layer's weight that stay."""
        return [(out.kept(candidate.keep), inner.kept(candidate.keep)) for out, inner in self._axes]

    def macs(self, sizes: list[tuple[float, float]]) -> list[float]:
        """Multiply-accumulates of each layer at these sizes."""
        return [m * prod(s) / prod(f) for m, s, f in zip(self._macs, sizes, self.full, strict=True)]

    def _axis(self, op: Op, dim: int) -> _Axis:
        weight = op.params["weight"]
        owners = tuple(
            (g.name, g.size, len(member.local) / g.size / member.blocks)
            for g in self._space.plan.free
            for member in g.members
            if member.name == weight.name and member.dim == dim
        )
        return _Axis(weight.shape[dim], owners)
