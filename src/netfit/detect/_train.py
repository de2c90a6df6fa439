"""Training of forecasters. `netfit.train` trains classifiers; a forecast has no labels, so the loop is its own."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netfit.errors import ConfigError, JobError
from netfit.seeding import derive

from ._informer import SemiSupervisedMSE

if TYPE_CHECKING:
    from ._forecaster import Forecaster

__all__ = ["fit_windows", "train"]


def train(config: "Forecaster", rows: NDArray[np.float64], labels: Any, seed: int) -> dict[str, NDArray[Any]]:
    """Weights of a trained network, and the scaling of its inputs under ``low`` and ``span``."""
    size = config.window
    if len(rows) < size + config.batch_size:
        raise ConfigError(
            f"{len(rows)} rows train no forecaster of window {size}: give {size + config.batch_size} or more"
        )
    low, high = rows.min(0), rows.max(0)
    span = np.where(high > low, high - low, np.maximum(np.abs(low), 1.0))
    scaled = torch.from_numpy(((rows - low) / span).astype(np.float32))
    windows = scaled.unfold(0, size, 1).transpose(1, 2)
    share = None
    if config.mu is not None:
        share = _shares(labels, len(rows), size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights") % 2**63)
        network: Any = config.build(rows.shape[1])
        fit_windows(network, windows, share, config, seed)
    weights = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    return {**weights, "low": low, "span": span}


def fit_windows(network: Any, windows: Tensor, share: Tensor | None, config: "Forecaster", seed: int) -> None:
    """Train a forecaster in place on windows (n, window, features).

    Args:
        network: `TranAD` or `InformerForecaster`.
        windows: scaled to about [0, 1].
        share: of abnormal rows in each window, for the semi-supervised loss; None for the squared error.
        config: epochs, batch size, learning rate and mu.
        seed: of order and dropout.

    Raises:
        JobError: the loss is not finite.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    supervised = None if config.mu is None else SemiSupervisedMSE(config.mu)
    network.train()
    for epoch in range(config.epochs):
        torch.manual_seed(derive(seed, "epoch", epoch) % 2**63)
        for rows in _order(len(windows), share, config.batch_size):
            error = network.loss(windows[rows], epoch + 1)
            if supervised is not None and share is not None:
                error = supervised(error, share[rows][:, None])
            loss = error.mean()
            if not torch.isfinite(loss):
                raise JobError(f"the forecaster's loss is {loss.item()} in epoch {epoch + 1}: lower the learning rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()


def _order(n: int, share: Tensor | None, batch: int) -> list[Tensor]:
    """Batches of one epoch. With labels: clean windows, as many as exceed the abnormal ones, then all abnormal ones."""
    if share is None or not (share > 0).any():
        return [part for part in torch.randperm(n).split(batch) if len(part) > 1]
    clean, abnormal = torch.nonzero(share == 0)[:, 0], torch.nonzero(share > 0)[:, 0]
    clean = clean[torch.randperm(len(clean))][: max(len(clean) - len(abnormal), batch)]
    abnormal = abnormal[torch.randperm(len(abnormal))]
    return [part for each in (clean, abnormal) for part in each.split(batch) if len(part) > 1]


def _shares(labels: Any, rows: int, size: int) -> Tensor:
    if labels is None:
        raise ConfigError("the semi-supervised loss learns from labels: give y, 0 and 1 for each row")
    y = torch.as_tensor(np.asarray(labels), dtype=torch.float32)
    if y.shape != (rows,):
        raise ConfigError(f"labels of {tuple(y.shape)} for {rows} rows: give one for each row")
    return y.unfold(0, size, 1).mean(1)
