"""The policy's word for a Bayesian layer: `Bayesian`; and the network with all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import nn

from netfit.surgery import Policy, Site, Stage, Technique, apply

from ._layers import Estimator, check_settings, from_layer

__all__ = ["Bayesian", "to_bayesian"]


@dataclass(frozen=True)
class Bayesian(Technique):
    """Gaussian weights in a linear layer or a convolution; its trained weights become their means.

    "Weight Uncertainty in Neural Networks" (Blundell et al., 2015).

    Args:
        prior_std: of the zero-mean Gaussian prior of every weight.
        init_std: standard deviation every weight begins with.
        estimator: how training is random: ``"local"``, ``"flipout"``, ``"weight"`` or ``"mean"`` (not at all).

    >>> Bayesian(prior_std=0.5)
    Bayesian(prior_std=0.5, init_std=0.02, estimator='local')
    """

    name: ClassVar[str] = "bayesian"
    stage: ClassVar[Stage] = Stage.PRUNE  # after layers changed their form, before numbers are rounded
    mechanism: ClassVar[Literal["swap"]] = "swap"
    kinds: ClassVar[frozenset[str] | None] = frozenset({"linear", "conv1d", "conv2d"})

    prior_std: float = 1.0
    init_std: float = 0.02
    estimator: Estimator = "local"

    def __post_init__(self) -> None:
        check_settings(self.prior_std, self.init_std, self.estimator)

    @classmethod
    def rewrite(
        cls, model: nn.Module, chosen: Mapping[Site, Self], example_inputs: tuple[torch.Tensor, ...]
    ) -> nn.Module:
        """Replace every chosen layer; see `Technique.swap_layers`."""
        return cls.swap_layers(
            model, chosen, lambda own, old: from_layer(old, own.prior_std, own.init_std, own.estimator)
        )


def to_bayesian(model: nn.Module, *example_inputs: torch.Tensor, policy: Policy | None = None) -> nn.Module:
    """A copy of a trained network with Gaussian weights, which begin at the trained ones.

    Args:
        model: any module.
        example_inputs: tensors it can be run with.
        policy: which layers, and how; every linear layer and convolution by default.

    Raises:
        ConfigError: a pattern of the policy matches nothing.
        UnsupportedLayerError: a layer has no Bayesian form.

    >>> to_bayesian(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.ones(1, 4))[0].weight_rho.shape
    torch.Size([3, 4])
    """
    return apply(model, policy if policy is not None else Policy({"*": Bayesian()}), *example_inputs)
