"""Posteriors that were trained elsewhere: parameter stores of Pyro's AutoNormal guides, read without Pyro."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.bayes._gaussian import Gaussian
from netfit.errors import ArtifactError, ConfigError
from netfit.io import StandIn, read_torch

from ._layers import BayesLayer, bayes_layers, inverse_softplus

__all__ = ["load_posterior", "load_pyro_guide", "posterior"]

_SOFTPLUS = "pyro.distributions.constraints._SoftplusPositive"
_POSITIVE = "torch.distributions.constraints._GreaterThan"
_REAL = "torch.distributions.constraints._Real"
# What the stored numbers of a scale mean is the constraint's word, not a convention.
_TO_STD: dict[str, Callable[[Tensor], Tensor]] = {_SOFTPLUS: F.softplus, _POSITIVE: torch.exp}


def load_pyro_guide(path: str | Path, *, rename: Mapping[str, str] | None = None) -> dict[str, Gaussian]:
    """Read the parameter store of a Pyro guide whose sites are independent Gaussians.

    Nothing in the file is run: the two classes it needs are replaced by empty ones of the same name, and the file is
    refused when it asks for any other.

    Args:
        path: file of ``pyro.get_param_store().save``.
        rename: layer in the file -> layer of the network, where they differ.

    Returns:
        Name of each weight, such as ``"conv1.weight"`` -> its mean and variance.

    Raises:
        ArtifactError: the file is damaged, asks for foreign classes (all are listed), or is no such guide.
    """
    store = read_torch(path, (_SOFTPLUS, _POSITIVE, _REAL))
    try:
        parameters, constraints = dict(store["params"]), dict(store["constraints"])
        found: dict[str, Gaussian] = {}
        for key, loc in parameters.items():
            guide, _, name = key.partition(".locs.")
            if not name:
                continue
            scale = f"{guide}.scales.{name}"
            law = constraints[scale]
            kind = law.origin if isinstance(law, StandIn) else type(law).__name__
            if kind not in _TO_STD:
                raise ArtifactError(f"{path}: scales under the constraint {kind} are not understood")
            std = _TO_STD[kind](parameters[scale].detach())
            layer, _, role = name.rpartition(".")
            found[f"{(rename or {}).get(layer, layer)}.{role}"] = Gaussian(loc.detach().clone(), std.square())
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        if isinstance(e, ArtifactError):
            raise
        raise ArtifactError(f"{path} is no parameter store of a guide with locs and scales: {e!r}") from e
    if not found:
        raise ArtifactError(f"{path} holds no independent Gaussians: {', '.join(list(parameters)[:3])} ...")
    return found


def posterior(model: nn.Module) -> dict[str, Gaussian]:
    """Means and variances of every weight and bias of the Bayesian layers, as they are stored."""
    found: dict[str, Gaussian] = {}
    for name, layer in bayes_layers(model).items():
        prefix = f"{name}." if name else ""
        mean, std = layer.posterior()
        found[f"{prefix}weight"] = Gaussian(mean, std.square())
        bias, bias_std = layer.bias_posterior()
        if bias is not None and bias_std is not None:
            found[f"{prefix}bias"] = Gaussian(bias, bias_std.square())
    return found


@torch.no_grad()
def load_posterior(model: nn.Module, state: Mapping[str, Gaussian], variance_scale: float = 1.0) -> nn.Module:
    """Put means and variances into a Bayesian network, in place.

    A posterior of other layer names is taken in order when every layer finds its partner that way.

    Args:
        model: with Bayesian layers.
        state: name of each weight -> mean and variance, from `load_pyro_guide` or `posterior`.
        variance_scale: factor for every variance.

    Returns:
        `model`.

    Raises:
        ConfigError: names or shapes do not fit; both are named.
    """
    layers = bayes_layers(model)
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no Bayesian layer: apply Bayesian to it first")
    if not variance_scale > 0:
        raise ConfigError(f"variance_scale={variance_scale}: choose a positive number")
    theirs = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    if set(theirs) != set(layers):
        if len(theirs) != len(layers):
            names = f"{', '.join(theirs)} for layers {', '.join(layers)}"
            raise ConfigError(f"a posterior of {names}: names and counts differ")
        state = {f"{own}.{role}": state[f"{other}.{role}"]
                 for own, other in zip(layers, theirs, strict=True)
                 for role in ("weight", "bias") if f"{other}.{role}" in state}  # fmt: skip
    for name, layer in layers.items():
        _load_layer(name, layer, state, variance_scale)
    return model


def _load_layer(name: str, layer: BayesLayer, state: Mapping[str, Gaussian], scale: float) -> None:
    pairs = {"weight": (layer.weight, layer.weight_rho), "bias": (layer.bias, layer.bias_rho)}
    for role, (mu, rho) in pairs.items():
        given = state.get(f"{name}.{role}")
        if (given is None) != (mu is None):
            raise ConfigError(f"{name}.{role} is {'missing from' if given is None else 'only in'} the posterior")
        if given is None or mu is None or rho is None:
            continue
        if given.mean.shape != mu.shape:
            raise ConfigError(f"{name}.{role} is {tuple(given.mean.shape)} in the posterior, {tuple(mu.shape)} here")
        var = given.check().var
        if var is None or bool((var <= 0).any()):
            raise ConfigError(f"{name}.{role} of the posterior has weights without variance")
        mu.copy_(given.mean)
        rho.copy_(inverse_softplus((var.double() * scale).sqrt()))
