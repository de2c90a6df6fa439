"""Many linear heads on one trunk, and the loss that pushes their predictions apart.

"Function Space Diversity for Uncertainty Prediction via Repulsive Last-Layer Ensembles" (2024); the repulsion is that
of "Repulsive Deep Ensembles are Bayesian" (D'Angelo and Fortuin, 2021).
"""

import copy
import math
from typing import Literal, Self

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, UnsupportedLayerError
from netfit.surgery import sites

__all__ = ["RepulsiveHeads", "repulsion_loss"]

_NOISE = 0.1  # of a copied head, relative to the spread of its weights


class RepulsiveHeads(nn.Module):
    """An ensemble that shares all but its last layer: (batch, ...) -> (members, batch, classes).

    Args:
        trunk: maps (batch, ...) to (batch, in_features).
        in_features: of a head.
        num_classes: of a head.
        num_heads: members, at least 2.
        seed: of the heads' first weights.

    Raises:
        ConfigError: fewer than two heads repel nothing.

    >>> RepulsiveHeads(nn.Flatten(), 6, 3, num_heads=4)(torch.ones(2, 2, 3)).shape
    torch.Size([4, 2, 3])
    """

    def __init__(
        self, trunk: nn.Module, in_features: int, num_classes: int, num_heads: int = 10, *, seed: int = 0
    ) -> None:
        super().__init__()
        if num_heads < 2:
            raise ConfigError(f"num_heads={num_heads}: repulsion acts between predictions, so at least 2 are needed")
        generator = torch.Generator().manual_seed(seed)
        reach = 1 / math.sqrt(in_features)
        self.trunk = trunk
        self.weight = nn.Parameter(_uniform((num_heads, num_classes, in_features), reach, generator))
        self.bias = nn.Parameter(_uniform((num_heads, num_classes), reach, generator))

    @classmethod
    def from_classifier(cls, model: nn.Module, example: Tensor, num_heads: int = 10, *, seed: int = 0) -> Self:
        """Heads on a copy of a trained classifier: its own last layer, with noise, is where each of them begins.

        Args:
            model: ends in a linear layer.
            example: an input batch.
            num_heads: members.
            seed: of the noise.

        Raises:
            UnsupportedLayerError: the network's last operation is no linear layer of its own.
        """
        last = sites(model, example)[-1]
        found = dict(model.named_modules()).get(last.name)
        if not isinstance(found, nn.Linear):
            raise UnsupportedLayerError(f"the network ends in {last.name!r} ({last.kind}), not in a linear layer")
        trunk = copy.deepcopy(model)
        parent, _, name = last.name.rpartition(".")
        setattr(trunk.get_submodule(parent), name, nn.Identity())
        new = cls(trunk, found.in_features, found.out_features, num_heads, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            noise = torch.randn(new.weight.shape, generator=generator)
            new.weight.copy_(found.weight + _NOISE * found.weight.std() * noise)
            new.bias.copy_(torch.zeros_like(new.bias) if found.bias is None else found.bias.expand_as(new.bias))
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every head."""
        return self.heads(self.trunk(x))

    def heads(self, features: Tensor) -> Tensor:
        """Logits of every head for the trunk's output (batch, in_features)."""
        return torch.einsum("bf,mcf->mbc", features, self.weight) + self.bias[:, None, :]


def _uniform(shape: tuple[int, ...], reach: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * reach


def repulsion_loss(predictions: Tensor, *, space: Literal["prob", "logit"] = "prob") -> Tensor:
    """Mean over members of log sum_j exp(-|p_i - p_j|^2 / h): large where predictions agree.

    The gradient treats the others as fixed. h is the median squared distance of two members over ln M, the rule of
    "Stein Variational Gradient Descent" (Liu and Wang, 2016).

    Args:
        predictions: logits (members, batch, classes).
        space: compare probabilities or logits.

    Raises:
        ConfigError: fewer than two members, or another shape.
    """
    if predictions.dim() != 3 or len(predictions) < 2:
        raise ConfigError(
            f"predictions {tuple(predictions.shape)}: repulsion needs (members, batch, classes), 2 members"
        )
    flat = (predictions.softmax(2) if space == "prob" else predictions).flatten(1)
    distance = (flat[:, None] - flat.detach()[None]).square().sum(2)
    members = len(flat)
    others = distance.detach()[~torch.eye(members, dtype=torch.bool)]
    width = (others.median() / math.log(members)).clamp_min(1e-8)
    return torch.logsumexp(-distance / width, 1).mean()
