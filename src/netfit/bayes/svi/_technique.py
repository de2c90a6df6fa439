"""The policy's word for a Bayesian layer: `Bayesian`; and the network with all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import nn

from netfit.errors import PolicyConflict, UnsupportedLayerError
from netfit.surgery import Policy, Site, Stage, Technique, apply

from ._layers import BayesLayer, Estimator, check_settings, from_layer

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
        """Replace every chosen layer; one that is used in several places is replaced in all of them.

        Raises:
            PolicyConflict: one layer is given two settings.
            UnsupportedLayerError: a place is no layer of its own, or has no Bayesian form.
        """
        wanted: dict[str, Self] = {}
        for site, technique in chosen.items():
            if wanted.setdefault(site.name, technique) != technique:
                raise PolicyConflict(f"the calls of {site.name!r} share one weight: give them the same {cls.name}")
        modules = dict(model.named_modules())
        new: dict[nn.Module, BayesLayer] = {}
        for name, own in wanted.items():
            if (old := modules.get(name)) is None:
                raise UnsupportedLayerError(f"{name!r} is no layer of its own: bayesian replaces layers")
            try:
                new[old] = from_layer(old, own.prior_std, own.init_std, own.estimator)
            except UnsupportedLayerError as e:
                raise UnsupportedLayerError(f"{name!r} cannot become bayesian: {e}") from e
        for module in list(model.modules()):
            for key, child in list(module._modules.items()):  # named_children() names a shared one once
                if child in new:
                    setattr(module, key, new[child])
        return new.get(model, model)


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
