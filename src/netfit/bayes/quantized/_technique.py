"""The policy's word for low-bit Bayesian layers: `QuantizeBayes`.

"Uncertainty-Preserving QBNNs": VPQ rounds the variational parameters, SPQ the weights sampled from them, JQ both. The
grids are those of `netfit.quant`: means and samples affine with a scale per output channel, standard deviations on a
logarithmic grid anchored at its top, because most of them lie near the prior's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn

from netfit.bayes.svi import BayesLayer, bayes_layers
from netfit.bayes.svi._layers import Rounding
from netfit.errors import ConfigError, PolicyConflict, UnsupportedLayerError, did_you_mean
from netfit.quant import Affine, Logarithmic
from netfit.surgery import Policy, Site, Stage, Technique, apply

__all__ = ["Mode", "QuantizeBayes", "quantize_bayes"]

Mode = Literal["VPQ", "SPQ", "JQ"]
_MOST_LOST = 0.01  # share of standard deviations that may lie below the grid


@dataclass(frozen=True)
class QuantizeBayes(Technique):
    """Low-bit weights in a Bayesian layer; training goes on through the rounding.

    Args:
        mode: ``"VPQ"`` (means and standard deviations), ``"SPQ"`` (drawn weights) or ``"JQ"`` (both).
        mu_bits: of a mean, 2 to 8.
        sigma_bits: of a standard deviation, 1 to 8.
        weight_bits: of a drawn weight, 2 to 8.
        octaves: reach of the standard deviations' grid below its top.
        top: log2 of the largest standard deviation.

    >>> QuantizeBayes(mode="VPQ", mu_bits=8).mu_bits
    8
    """

    name: ClassVar[str] = "quantize_bayes"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    mechanism: ClassVar[Literal["swap"]] = "swap"
    kinds: ClassVar[frozenset[str] | None] = frozenset({"linear", "conv1d", "conv2d"})

    mode: Mode = "JQ"
    mu_bits: int = 4
    sigma_bits: int = 4
    weight_bits: int = 4
    octaves: float = 8.0
    top: float = 0.5

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f"mode={self.mode!r}; {did_you_mean(self.mode, get_args(Mode))}")
        for field, bits, least in (("mu_bits", self.mu_bits, 2), ("sigma_bits", self.sigma_bits, 1),
                                   ("weight_bits", self.weight_bits, 2)):  # fmt: skip
            if not least <= bits <= 8:
                raise ConfigError(f"{field}={bits}: choose {least} to 8")
        self.rounding()  # the grid refuses octaves it cannot have

    def rounding(self) -> Rounding:
        """Number formats of the layer."""
        stored, drawn = self.mode != "SPQ", self.mode != "VPQ"
        sigma = Logarithmic(self.sigma_bits, self.top, self.octaves)
        return Rounding(
            Affine(self.mu_bits, axis=0) if stored else None,
            sigma if stored else None,
            Affine(self.weight_bits, axis=0) if drawn else None,
        )

    @classmethod
    def rewrite(cls, model: nn.Module, chosen: Mapping[Site, Self], example_inputs: tuple[Tensor, ...]) -> nn.Module:
        """Give every chosen Bayesian layer its formats.

        Raises:
            PolicyConflict: one layer is given two settings.
            UnsupportedLayerError: a place is no Bayesian layer.
            ConfigError: standard deviations lie below the grid; their number is named.
        """
        layers = bayes_layers(model)
        wanted: dict[str, Self] = {}
        for site, technique in chosen.items():
            if site.name not in layers:
                raise UnsupportedLayerError(f"{site.name!r} is no Bayesian layer: apply Bayesian to it first")
            if wanted.setdefault(site.name, technique) != technique:
                raise PolicyConflict(f"the calls of {site.name!r} share one weight: give them the same {cls.name}")
        for name, technique in wanted.items():
            rounding = technique.rounding()
            _check_reach(name, layers[name], rounding.sigma)
            layers[name].rounding = rounding
        return model


def _check_reach(name: str, layer: BayesLayer, grid: object) -> None:
    if not isinstance(grid, Logarithmic):
        return
    std = torch.nn.functional.softplus(layer.weight_rho.detach())
    least = 2.0 ** (grid.top - grid.octaves * (1 + 0.5 / (2**grid.bits - 1)))
    lost = int((std < least).sum())
    if lost > _MOST_LOST * std.numel():
        raise ConfigError(
            f"{lost} of {std.numel()} standard deviations of {name!r} lie below {least:.2g}, the end of their grid: "
            f"raise octaves={grid.octaves:g} or lower top={grid.top:g}"
        )


def quantize_bayes(model: nn.Module, *example_inputs: Tensor, policy: Policy | None = None) -> nn.Module:
    """A copy of a Bayesian network whose layers are rounded; `fit_svi` trains it on through the rounding.

    Args:
        model: with Bayesian layers.
        example_inputs: tensors it can be run with.
        policy: which layers, and how; by default 4 bits everywhere. At 4 bits and below, train a few epochs more:
            rounding alone costs accuracy.

    Raises:
        ConfigError: a pattern matches nothing, or standard deviations lie below the grid.
        UnsupportedLayerError: a place is no Bayesian layer.
    """
    return apply(model, policy if policy is not None else Policy({"*": QuantizeBayes()}), *example_inputs)
