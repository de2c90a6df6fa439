"""Linear layers and convolutions whose weights are independent Gaussians.

They are subclasses of torch's layers: ``weight`` and ``bias`` are the means, so the trained network's state_dict fits,
and ``weight_rho`` and ``bias_rho`` hold the standard deviations as softplus(rho). In evaluation mode a layer computes
with its means; inside `sampling` it draws weights; in training mode its `estimator` says how it is random.

"Weight Uncertainty in Neural Networks" (Blundell et al., 2015), "Variational Dropout and the Local Reparameterization
Trick" (Kingma et al., 2015), "Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches" (Wen et al.,
2018).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.errors import ConfigError, UnsupportedLayerError, did_you_mean
from netfit.quant import Format

__all__ = ["BayesConv1d", "BayesConv2d", "BayesLayer", "BayesLinear", "Estimator", "Rounding", "bayes_layers",
           "inverse_softplus", "kl_divergence", "sampling"]  # fmt: skip

Estimator = Literal["local", "flipout", "weight", "mean"]
_TINY = 1e-12  # keeps the square root's gradient finite where nothing varies


@dataclass(frozen=True)
class Rounding:
    """Number formats of one layer's weights; None leaves that number as it is.

    Args:
        mu: of the means.
        sigma: of the standard deviations.
        sample: of the weights drawn in a forward pass.
    """

    mu: Format | None = None
    sigma: Format | None = None
    sample: Format | None = None


def inverse_softplus(std: Tensor) -> Tensor:
    """rho with softplus(rho) = std."""
    return std + torch.log(-torch.expm1(-std))


class BayesLayer(nn.Module):
    """What the Bayesian layers share. Made by `Bayesian` from a trained layer, or directly by their classes."""

    weight: Any  # torch's own layers declare them, each in its way
    bias: Any
    weight_rho: nn.Parameter
    bias_rho: nn.Parameter | None

    def make_bayesian(self, prior_std: float, init_std: float, estimator: Estimator) -> None:
        """Give every weight and bias a standard deviation of `init_std`."""
        self.prior_std, self.estimator = prior_std, estimator
        self.rounding = Rounding()
        self.generator: torch.Generator | None = None
        rho = float(inverse_softplus(torch.tensor(init_std, dtype=torch.float64)))
        self.weight_rho = nn.Parameter(torch.full_like(self.weight, rho))
        self.register_parameter(
            "bias_rho", None if self.bias is None else nn.Parameter(torch.full_like(self.bias, rho))
        )

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the weight, rounded as they are stored."""
        with torch._C.DisableTorchFunction():  # what a layer does to its weights is no call site of the network
            mean: Tensor = self.weight
            std = F.softplus(self.weight_rho)
            if self.rounding.mu is not None:
                mean = self.rounding.mu(mean)
            if self.rounding.sigma is not None:
                std = self.rounding.sigma(std)
        return mean, std

    def bias_posterior(self) -> tuple[Tensor | None, Tensor | None]:
        """Mean and standard deviation of the bias; biases are never rounded."""
        with torch._C.DisableTorchFunction():
            return self.bias, None if self.bias_rho is None else F.softplus(self.bias_rho)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer computes with given weights."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for weights at their means, or drawn anew: see the module."""
        if self.generator is not None:
            return self.product(x, *self._draw(self.generator))
        if not self.training or self.estimator == "mean":
            return self.product(x, self.posterior()[0], self.bias)
        if self.estimator == "weight" or self.rounding.sample is not None:
            return self.product(x, *self._draw(None))
        return self._flipout(x) if self.estimator == "flipout" else self._local(x)

    def _draw(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        (mean, std), (bias, bias_std) = self.posterior(), self.bias_posterior()
        with torch._C.DisableTorchFunction():
            weight = mean + std * _noise(mean, generator)
            if self.rounding.sample is not None:
                weight = self.rounding.sample(weight)
            if bias is not None and bias_std is not None:
                bias = bias + bias_std * _noise(bias, generator)
        return weight, bias

    def _local(self, x: Tensor) -> Tensor:
        """Draw outputs instead of weights: their mean and variance are exact for one sample."""
        (mean, std), (bias, bias_std) = self.posterior(), self.bias_posterior()
        out = self.product(x, mean, bias)
        var = self.product(x.square(), std.square(), None if bias_std is None else bias_std.square())
        return out + (var + _TINY).sqrt() * torch.randn_like(out)

    def _flipout(self, x: Tensor) -> Tensor:
        """One draw of the weights, with random signs for every sample."""
        (mean, std), (bias, bias_std) = self.posterior(), self.bias_posterior()
        if bias is not None and bias_std is not None:
            bias = bias + bias_std * torch.randn_like(bias)
        out = self.product(x, mean, bias)
        kept = 1 if isinstance(self, nn.Linear) else out.dim() - self.weight.dim() + 2
        signs_in, signs_out = _signs(x, kept), _signs(out, kept)
        return out + self.product(x * signs_in, std * torch.randn_like(std), None) * signs_out


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _signs(x: Tensor, dims: int) -> Tensor:
    """-1 and +1 for every sample and channel; the same along the positions of a convolution."""
    shape = x.shape if dims == 1 else (*x.shape[:2], *[1] * (x.dim() - 2))
    return torch.randint(0, 2, shape, dtype=x.dtype, device=x.device) * 2 - 1


class BayesLinear(BayesLayer, nn.Linear):
    """`nn.Linear` with Gaussian weights.

    Args:
        in_features, out_features, bias: as for `nn.Linear`.
        prior_std: of the zero-mean Gaussian prior.
        init_std: standard deviation every weight begins with.
        estimator: ``"local"`` (draws outputs), ``"flipout"``, ``"weight"`` (one draw a batch) or ``"mean"`` (none).

    >>> layer = BayesLinear(3, 2).eval()
    >>> bool((layer(torch.ones(1, 3)) == F.linear(torch.ones(1, 3), layer.weight, layer.bias)).all())
    True
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, prior_std: float = 1.0, init_std: float = 0.02,
        estimator: Estimator = "local",
    ) -> None:  # fmt: skip
        super().__init__(in_features, out_features, bias)
        self.make_bayesian(*check_settings(prior_std, init_std, estimator))

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x @ weight.T + bias."""
        return F.linear(x, weight, bias)


class _Convolution(BayesLayer):
    def __init__(
        self, *args: Any, prior_std: float = 1.0, init_std: float = 0.02, estimator: Estimator = "local", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.make_bayesian(*check_settings(prior_std, init_std, estimator))

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution, padded as torch's own layer pads."""
        return cast(Tensor, self._conv_forward(x, weight, bias))  # type: ignore[operator]


class BayesConv1d(_Convolution, nn.Conv1d):
    """`nn.Conv1d` with Gaussian weights; `prior_std`, `init_std` and `estimator` as for `BayesLinear`."""


class BayesConv2d(_Convolution, nn.Conv2d):
    """`nn.Conv2d` with Gaussian weights; `prior_std`, `init_std` and `estimator` as for `BayesLinear`."""


_CLASSES: dict[type[nn.Module], type[BayesLayer]] = {
    nn.Linear: BayesLinear,
    nn.Conv1d: BayesConv1d,
    nn.Conv2d: BayesConv2d,
}


def from_layer(old: nn.Module, prior_std: float, init_std: float, estimator: Estimator) -> BayesLayer:
    """The Bayesian form of a trained layer, with its weights as means.

    Raises:
        UnsupportedLayerError: there is none.
    """
    if type(old) not in _CLASSES:
        known = ", ".join(cls.__name__ for cls in _CLASSES)
        raise UnsupportedLayerError(f"a {type(old).__name__} has no Bayesian form; {known} have")
    if getattr(old, "padding_mode", "zeros") != "zeros":
        raise UnsupportedLayerError(f"a convolution with padding_mode={old.padding_mode!r} has no Bayesian form")
    new = _CLASSES[type(old)].__new__(_CLASSES[type(old)])
    # The layer's own attributes as they are: parameters, hooks, device and mode.
    new.__dict__.update(old.__dict__)
    new._parameters = dict(old._parameters)
    new.make_bayesian(prior_std, init_std, estimator)
    return new


def check_settings(prior_std: float, init_std: float, estimator: Estimator) -> tuple[float, float, Estimator]:
    """Refuse settings that describe no posterior.

    Raises:
        ConfigError: a standard deviation is not positive, or the estimator is unknown.
    """
    for name, value in (("prior_std", prior_std), ("init_std", init_std)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name}={value} of a Bayesian layer: choose a positive number")
    if estimator not in get_args(Estimator):
        raise ConfigError(f"estimator={estimator!r} is unknown; {did_you_mean(estimator, get_args(Estimator))}")
    return prior_std, init_std, estimator


def bayes_layers(model: nn.Module) -> dict[str, BayesLayer]:
    """Bayesian layers by module path; a shared one under each of its paths."""
    named = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in named if isinstance(module, BayesLayer)}


@contextmanager
def sampling(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Let every Bayesian layer draw its weights anew in each forward pass, also in evaluation mode.

    Args:
        model: any module with Bayesian layers.
        generator: what the weights are drawn from.
    """
    layers = set(bayes_layers(model).values())
    for layer in layers:
        layer.generator = generator
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = None


def kl_divergence(model: nn.Module) -> Tensor:
    """Nats from the posterior of all Bayesian layers to their priors, in closed form; a scalar with gradients.

    Raises:
        ConfigError: the model has no Bayesian layer.
    """
    layers = set(bayes_layers(model).values())
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no Bayesian layer: apply Bayesian to it first")
    total = torch.zeros(())
    for layer in layers:
        for mean, std in (layer.posterior(), layer.bias_posterior()):
            if mean is not None and std is not None:
                own, prior = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, layer.prior_std)
                total = total + torch.distributions.kl_divergence(own, prior).sum()
    return total
