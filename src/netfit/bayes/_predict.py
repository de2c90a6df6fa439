"""Predictions of any network that can say how sure it is, by one call."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean
from netfit.seeding import derive

from ._gaussian import Gaussian
from ._uncertainty import Uncertainty, join, uncertainty
from .svi import bayes_layers, sampling

__all__ = ["Method", "predict"]

Method = Literal["svi", "pfp", "ensemble", "mcdropout"]
Network = nn.Module | Callable[[Tensor], Gaussian] | Sequence[nn.Module]


@torch.no_grad()
def predict(
    model: Network, x: Tensor, *, method: Method = "svi", n_samples: int = 30, batch_size: int = 250, seed: int = 0
) -> Uncertainty:
    """Class probabilities and uncertainties of a data set.

    Args:
        model: for ``"svi"`` a network with Bayesian layers; for ``"pfp"`` a `PFP` or what its ``compile`` returned; for
            ``"ensemble"`` a list of networks, or one that returns (members, batch, classes); for ``"mcdropout"`` a
            network with dropout ("Dropout as a Bayesian Approximation", Gal and Ghahramani, 2016).
        x: inputs (n, ...).
        method: see `model`.
        n_samples: networks drawn (svi, mcdropout), or logits drawn from the Gaussian (pfp, at least 100).
        batch_size: inputs a forward pass.
        seed: of the draws; every batch sees the same networks.

    Raises:
        ConfigError: an unknown method, a network that does not fit it, or inputs that are not finite.
    """
    if method not in get_args(Method):
        raise ConfigError(f"method={method!r} is unknown; {did_you_mean(method, get_args(Method))}")
    if n_samples < 1 or batch_size < 1:
        raise ConfigError(f"n_samples={n_samples} and batch_size={batch_size} must be at least 1")
    if not bool(x.isfinite().all()):
        raise ConfigError(f"{int((~x.isfinite()).sum())} input numbers are not finite")
    run = _runner(model, method, n_samples, seed)
    return join([uncertainty(run(part), n_samples=max(n_samples, 100), seed=seed) for part in x.split(batch_size)])


def _runner(model: Network, method: Method, n: int, seed: int) -> Callable[[Tensor], Tensor | Gaussian]:
    if method == "pfp":
        if not callable(model):
            raise ConfigError("method='pfp' needs the result of to_pfp or of its compile()")
        return model
    if method == "ensemble":
        if isinstance(model, Sequence):
            members = [_evaluated(m) for m in model]
            return lambda part: torch.stack([m(part) for m in members])
        own = _evaluated(model)
        return lambda part: _members(own(part))
    if not isinstance(model, nn.Module):
        raise ConfigError(f"method={method!r} needs one network, not a {type(model).__name__}")
    return _svi(model, n, seed) if method == "svi" else _dropout(model, n, seed)


def _evaluated(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ConfigError(f"a member of an ensemble is a {type(model).__name__}, not a network")
    return model.eval()


def _members(out: Tensor) -> Tensor:
    if out.dim() != 3:
        raise ConfigError(f"an ensemble returned {tuple(out.shape)}: give several networks, or (members, n, classes)")
    return out


def _svi(model: nn.Module, n: int, seed: int) -> Callable[[Tensor], Tensor]:
    if not bayes_layers(model):
        raise ConfigError(f"{type(model).__name__} has no Bayesian layer: apply Bayesian to it first")
    model.eval()

    def run(part: Tensor) -> Tensor:
        generator = torch.Generator()
        with sampling(model, generator):
            return torch.stack([_seeded(model, part, generator, derive(seed, "sample", i)) for i in range(n)])

    return run


def _seeded(model: nn.Module, x: Tensor, generator: torch.Generator, seed: int) -> Tensor:
    generator.manual_seed(seed)
    return model(x)


def _dropout(model: nn.Module, n: int, seed: int) -> Callable[[Tensor], Tensor]:
    model.eval()
    layers = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no dropout layer")

    def run(part: Tensor) -> Tensor:
        for layer in layers:
            layer.train()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return torch.stack([model(part) for _ in range(n)])
        finally:
            model.eval()

    return run
