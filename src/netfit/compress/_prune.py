"""`Prune`: the policy's word for removing output channels of a layer, and of all layers coupled to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from netfit.compress._groups import plan_channels
from netfit.compress._importance import importance
from netfit.compress._plan import ChannelGroup
from netfit.compress._slice import check_count, slice_model
from netfit.errors import ConfigError, PolicyConflict, UnsupportedLayerError, did_you_mean
from netfit.surgery import Site, Stage, Technique

__all__ = ["Prune"]

_IMPORTANCE = ("bn", "l1", "l2")  # those that need neither data nor a seed: a policy file alone decides the result


@dataclass(frozen=True)
class Prune(Technique):
    """Remove the least important output channels of a convolution or linear layer.

    Layers whose outputs are added, gated or convolved depthwise share their channels and lose the same ones; naming
    one of them is enough, and naming several with different settings is a conflict.

    Args:
        sparsity: fraction of the channels to remove, 0 to below 1.
        keep: channels to keep, as a number (int) or as a fraction (float above 0, up to 1).
        importance: ``"l1"``, ``"l2"`` or ``"bn"``, as in :func:`netfit.compress.importance`.

    At least one channel stays. Where layers see the channels in blocks (grouped convolution, attention heads), a
    fraction becomes the nearest multiple of the number of blocks.

    Raises:
        ConfigError: neither or both of sparsity and keep are given, or one is out of range.

    >>> Prune(keep=0.5), Prune(sparsity=0.25, importance="bn")
    (Prune(sparsity=None, keep=0.5, importance='l1'), Prune(sparsity=0.25, keep=None, importance='bn'))
    """

    name: ClassVar[str] = "prune"
    stage: ClassVar[Stage] = Stage.PRUNE
    mechanism: ClassVar = "graph"
    kinds: ClassVar[frozenset[str] | None] = frozenset(
        {"linear", *(f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3))}
    )

    sparsity: float | None = None
    keep: int | float | None = None
    importance: Literal["l1", "l2", "bn"] = "l1"

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.keep is None):
            raise ConfigError("Prune needs exactly one of sparsity and keep")
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ConfigError(f"sparsity must be at least 0 and below 1, not {self.sparsity}")
        if isinstance(self.keep, bool) or (isinstance(self.keep, int) and self.keep < 1):
            raise ConfigError(f"keep must be a number of channels from 1 up, not {self.keep}")
        if isinstance(self.keep, float) and not 0 < self.keep <= 1:
            raise ConfigError(f"keep as a fraction must be above 0 and at most 1, not {self.keep}")
        if self.importance not in _IMPORTANCE:
            raise ConfigError(f"unknown importance {self.importance!r}; {did_you_mean(self.importance, _IMPORTANCE)}")

    def count(self, group: ChannelGroup) -> int:
        """Number of channels of a group that stay.

        Raises:
            ConfigError: `keep` is a number the group cannot keep.
        """
        if isinstance(self.keep, int):
            check_count(group, self.keep)
            return self.keep
        return group.fit(self.keep if self.keep is not None else 1 - (self.sparsity or 0.0))

    @classmethod
    def rewrite(
        cls, model: nn.Module, chosen: Mapping[Site, "Prune"], example_inputs: tuple[torch.Tensor, ...]
    ) -> nn.Module:
        """Slice the groups of all chosen layers at once.

        Raises:
            PolicyConflict: layers of one group have different settings.
            UnsupportedLayerError: a layer's channels cannot be pruned; the message holds the reason.
        """
        plan = plan_channels(model, *example_inputs)
        wanted: dict[str, tuple[str, Prune]] = {}
        for site, technique in chosen.items():
            group = plan.group_of(site.name)
            if group.frozen is not None and technique.count(group) < group.size:
                raise UnsupportedLayerError(f"layer {site.name!r} cannot be pruned: {group.frozen}")
            layer, first = wanted.setdefault(group.name, (site.name, technique))
            if technique != first:
                raise PolicyConflict(
                    f"layers {layer!r} ({_words(first)}) and {site.name!r} ({_words(technique)}) "
                    f"share the channels of group {group.name!r}: give them the same setting"
                )
        keep = {name: technique.count(plan[name]) for name, (_, technique) in wanted.items()}
        scores: dict[str, torch.Tensor] = {}
        for name, (_, technique) in wanted.items():
            if keep[name] < plan[name].size:
                scores |= importance(model, [plan[name]], technique.importance)
        return slice_model(model, plan, keep, scores)


def _words(technique: Prune) -> str:
    return ", ".join(f"{key} {value}" for key, value in technique.settings().items())
