"""Training of heads that agree on the data and disagree elsewhere."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.seeding import derive
from netfit.train import History, fit

from ._heads import RepulsiveHeads, repulsion_loss
from ._inputs import PatchShuffle, Repulsion

__all__ = ["fit_repulsive"]

BETAS = (0.3, 0.1, 0.05, 0.02, 0.01)  # tried from the strongest down
_ALLOWED = 1.01  # times the validation loss without repulsion
_TRIAL = 6000  # samples of a trial


class _Mixture(nn.Module):
    """The ensemble as one classifier, for the training loop: its log mean probabilities are logits."""

    def __init__(self, model: RepulsiveHeads) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).log_softmax(2).logsumexp(0)


def fit_repulsive(
    model: RepulsiveHeads,
    train: tuple[Tensor, Tensor],
    *,
    epochs: int,
    lr: float = 2e-3,
    batch_size: int = 100,
    repulsion: Repulsion | None = None,
    beta: float | Literal["auto"] = 0.02,
    n_repulsive: int = 64,
    freeze_trunk: bool = False,
    validation: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[History, float]:
    """Train heads and trunk in place, with Adam: mean cross entropy plus beta times `repulsion_loss`.

    Args:
        model: changed in place.
        train: inputs (n, ...) float32 and labels (n,) int64.
        epochs: passes over the samples.
        lr: highest learning rate of the one-cycle schedule.
        batch_size: samples a step.
        repulsion: makes the inputs to disagree on from training inputs; `PatchShuffle` of 7 pixels by default. Inputs
            that still show their label make the heads under-fit.
        beta: weight of the repulsion; ``"auto"`` takes the largest of five whose validation loss, after an epoch of the
            heads alone, is at most 1 % above that without repulsion. Needs `validation`.
        n_repulsive: inputs to disagree on in each step.
        freeze_trunk: train the heads only, on a trunk that is trained already.
        validation: inputs and labels that are scored after each epoch.
        seed: of shuffling and every draw.
        checkpoint: folder from which a killed training goes on.
        progress: as in `netfit.train.fit`.

    Returns:
        What the training went through, and the beta it used.

    Raises:
        ConfigError: an argument cannot be used.
    """
    repulsion = PatchShuffle() if repulsion is None else repulsion
    _check(train[0], beta, n_repulsive, repulsion, validation, seed)
    settings: dict[str, Any] = {"lr": lr, "batch_size": batch_size}
    if beta == "auto":
        assert validation is not None
        beta = _search(model, train, validation, repulsion, n_repulsive, seed, settings)
    frozen = [p for p in model.trunk.parameters() if p.requires_grad] if freeze_trunk else []
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        history = fit(
            _Mixture(model), train, epochs=epochs, weight_decay=0.0, seed=seed, optimizer="adam", precision="fp32",
            validation=validation, checkpoint=checkpoint, progress=progress, **settings,
            objective=_objective(repulsion, beta, n_repulsive, freeze_trunk),
        )  # fmt: skip
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    model.eval()
    return history, beta


def _objective(repulsion: Repulsion, beta: float, n: int, frozen: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    def objective(mixture: nn.Module, x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
        model: Any = mixture.model
        inputs = x
        if beta:
            # The training loop seeds torch's generator for every epoch; a step's own draws follow from it.
            generator = torch.Generator().manual_seed(int(torch.randint(0, 2**62, ())))
            inputs = torch.cat([x, repulsion(x[:n], generator)])
        if frozen:
            model.trunk.eval()
        with torch.set_grad_enabled(not frozen):
            features = model.trunk(inputs)
        logits = model.heads(features)
        own = logits[:, : len(x)]
        loss = F.cross_entropy(own.flatten(0, 1), y.repeat(len(own)))
        if beta:
            loss = loss + beta * repulsion_loss(logits[:, len(x) :])
        return loss, own.detach().log_softmax(2).logsumexp(0)

    return objective


def _search(
    model: RepulsiveHeads, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], repulsion: Repulsion,
    n: int, seed: int, settings: dict[str, Any],
) -> float:  # fmt: skip
    """The strongest repulsion that hardly costs validation loss, by trials of one epoch from the same start."""
    rows = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(derive(seed, "beta")))[:_TRIAL]
    part = train[0][rows], train[1][rows]

    def trial(beta: float) -> float:
        own = copy.deepcopy(model)
        fit_repulsive(own, part, epochs=1, beta=beta, repulsion=repulsion, n_repulsive=n, seed=seed, **settings)
        with torch.no_grad():
            log = torch.cat([own(x).log_softmax(2).logsumexp(0) for x in validation[0].split(250)])
        return float(F.cross_entropy(log, validation[1]))

    limit = _ALLOWED * trial(0.0)
    return next((beta for beta in BETAS if trial(beta) <= limit), 0.0)


def _check(x: Tensor, beta: float | str, n: int, repulsion: Repulsion, validation: Any, seed: int) -> None:
    if n < 1:
        raise ConfigError(f"n_repulsive={n}: give at least 1 input to disagree on")
    if isinstance(beta, str):
        if beta != "auto":
            raise ConfigError(f"beta={beta!r}: give a number >= 0 or 'auto'")
        if validation is None:
            raise ConfigError("beta='auto' compares validation losses: give validation inputs and labels")
    elif not beta >= 0:
        raise ConfigError(f"beta={beta}: give a number >= 0 or 'auto'")
    made = repulsion(x[:n], torch.Generator().manual_seed(seed))
    if made.shape == x[:n].shape and torch.equal(made, x[:n]):
        warnings.warn(
            "the inputs to disagree on are the training inputs themselves: heads pushed apart there under-fit "
            "(Repulsive Last-Layer Ensembles, 2024); destroy the label first, as PatchShuffle does",
            UserWarning,
            stacklevel=3,
        )
