"""Training by stochastic variational inference: the one training loop of netfit under the evidence lower bound."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.train import History, fit

from ._layers import kl_divergence

__all__ = ["elbo", "fit_svi"]


def fit_svi(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    *,
    epochs: int,
    lr: float = 2e-3,
    batch_size: int = 100,
    kl_weight: float = 1.0,
    kl_warmup: float = 0.2,
    validation: tuple[Tensor, Tensor] | None = None,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> History:
    """Train the means and standard deviations of a Bayesian network in place, with Adam.

    The loss is the cross entropy of one random pass plus ``kl_weight`` times the divergence from the prior, per
    training sample: the negative evidence lower bound when the weight is 1. "Auto-Encoding Variational Bayes" (Kingma
    and Welling, 2014), "Weight Uncertainty in Neural Networks" (Blundell et al., 2015).

    Args:
        model: with Bayesian layers; maps (batch, ...) to logits (batch, classes).
        train: inputs (n, ...) float32 and labels (n,) int64.
        epochs: passes over the samples.
        lr: highest learning rate of the one-cycle schedule.
        batch_size: samples a step.
        kl_weight: of the divergence; below 1 a cold posterior.
        kl_warmup: share of all steps in which that weight rises from 0.
        validation: inputs and labels that are scored with the means after each epoch.
        patience: stop after so many epochs without a better validation accuracy.
        seed: of shuffling and every draw.
        checkpoint: folder from which a killed training goes on.
        progress: as in `netfit.train.fit`.

    Raises:
        ConfigError: an argument cannot be used, or the model has no Bayesian layer.
        JobError: the loss is not finite.
    """
    if kl_weight < 0 or not 0 <= kl_warmup <= 1:
        raise ConfigError(f"kl_weight={kl_weight} and kl_warmup={kl_warmup}: choose >= 0 and a share from 0 to 1")
    kl_divergence(model)  # refuses a network without Bayesian layers before the first step
    return fit(
        model, train, epochs=epochs, lr=lr, batch_size=batch_size, weight_decay=0.0, seed=seed, optimizer="adam",
        validation=validation, patience=patience, precision="fp32", checkpoint=checkpoint, progress=progress,
        objective=elbo(len(train[0]), kl_weight, kl_warmup),
    )  # fmt: skip


def elbo(
    samples: int, kl_weight: float, kl_warmup: float
) -> Callable[[nn.Module, Tensor, Tensor, float], tuple[Tensor, Tensor]]:
    """The negative evidence lower bound per training sample, as an objective of `netfit.train.fit`."""

    def objective(model: nn.Module, x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
        weight = kl_weight * (min(1.0, share / kl_warmup) if kl_warmup else 1.0)
        logits = model(x)
        return F.cross_entropy(logits, y) + weight / samples * kl_divergence(model), logits

    return objective
