"""Training by gradient: the hybrid loss, tables quantized while they are learned, and the learned structure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netfit.bayes.tan._tables import layout, log_joint
from netfit.quant import FixedPoint

__all__ = ["Loss", "Schedule", "learn_structure", "learn_tables", "quantized"]

_DECAY = 1e-3  # of the learning rate, log-linearly over a training
_HOT, _COLD = 10.0, 0.1  # temperature of the structure's choice, log-linearly over a training
_STRUCTURE_LR = 3e-2


@dataclass(frozen=True)
class Loss:
    """-log p(y, x) + lam * max(0, log(sum over c != y of exp(eta (gamma - log p(y, x) + log p(c, x)))) / eta).

    The soft margin of "On Resource-Efficient Bayesian Network Classifiers and Deep Neural Networks" (Roth, Schindler,
    Fröning, Pernkopf, 2020).
    """

    lam: float
    gamma: float
    eta: float

    def __call__(self, joint: Tensor, y: Tensor) -> Tensor:
        """Mean over the samples; `joint` is log p(class, x), (n, classes)."""
        own = joint.gather(1, y[:, None])
        likelihood = -own.mean()
        if self.lam == 0:
            return likelihood
        others = (self.eta * (self.gamma - own + joint)).scatter(1, y[:, None], -math.inf)
        return likelihood + self.lam * (others.logsumexp(1) / self.eta).clamp_min(0).mean()


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: epochs, samples a step, first learning rate, seed of order and choice."""

    epochs: int
    batch_size: int
    lr: float
    seed: int


class _Tables(nn.Module):
    """Free logits whose log-softmax over the values of a feature are its log-probabilities."""

    def __init__(self, table: NDArray[np.float64], groups: NDArray[np.int64], prior: NDArray[np.float64]) -> None:
        super().__init__()
        widest, classes = int(groups.max()), table.shape[1]
        real = torch.arange(widest) < torch.from_numpy(groups)[:, None]
        padded = torch.zeros(len(groups), widest, classes)
        padded[real] = torch.from_numpy(table).float()
        self.logits = nn.Parameter(padded)
        self.prior = nn.Parameter(torch.from_numpy(prior).float())
        self.real: Tensor
        self.register_buffer("real", real)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities (rows, classes) and (classes,)."""
        full = self.logits.masked_fill(~self.real[..., None], -math.inf)
        return full.log_softmax(1)[self.real], self.prior.log_softmax(0)


def quantized(log_p: Tensor, bits: tuple[int, int] | None) -> Tensor:
    """-Q(-log p), with the gradient straight through; `bits` are integer and fractional bits."""
    return log_p if bits is None else -FixedPoint(*bits)(-log_p)


def learn_tables(
    placed: Tensor, y: Tensor, groups: NDArray[np.int64], start: NDArray[np.float64], prior: NDArray[np.float64],
    loss: Loss, schedule: Schedule, bits: tuple[int, int] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Log-probabilities of a fixed structure, trained from `start` (rows, classes)."""
    tables = _Tables(start, groups, prior)

    def step(batch: Tensor, _progress: float) -> Tensor:
        table, first = (quantized(t, bits) for t in tables())
        return loss(log_joint(placed[batch], table, first), y[batch])

    _descend([{"params": list(tables.parameters()), "lr": schedule.lr}], step, len(y), schedule)
    with torch.no_grad():
        table, first = (t.double().numpy() for t in tables())
    return table, first


def learn_structure(
    codes: NDArray[np.int64], labels: NDArray[np.int64], sizes: NDArray[np.int64], choices: list[tuple[int, ...]],
    alpha: float, loss: Loss, schedule: Schedule, bits: tuple[int, int] | None, size_penalty: float,
) -> list[int]:  # fmt: skip
    """Parent of each feature (-1 for none), found by gradient among `choices` together with the tables.

    The choice is a straight-through Gumbel softmax that cools down; `size_penalty` times the expected growth of the
    tables over the naive structure is added to the loss.
    """
    classes = int(labels.max()) + 1
    plan = layout(sizes, choices)
    counts = plan.counts(codes, labels, classes)
    tables = _Tables(plan.smoothed(counts, alpha), plan.groups, _log_prior(labels, classes))
    width = max(map(len, choices))
    exists = torch.tensor([[k < len(chosen) for k in range(width)] for chosen in choices])
    scores = torch.zeros(exists.shape, requires_grad=True)
    growth = np.where(plan.parent < 0, 0, sizes[plan.feature] * (sizes[plan.parent] - 1) * classes)
    price = torch.zeros(exists.shape)
    price[exists] = torch.from_numpy(growth).float()
    placed, y = plan.places(codes), torch.from_numpy(labels)
    draw = torch.Generator().manual_seed(schedule.seed)

    def step(batch: Tensor, progress: float) -> Tensor:
        masked = scores.masked_fill(~exists, -math.inf)
        noise = -torch.empty(exists.shape).exponential_(generator=draw).log()
        soft = ((masked + noise) / (_HOT * (_COLD / _HOT) ** progress)).softmax(1)
        hard = torch.zeros_like(soft).scatter(1, soft.argmax(1, keepdim=True), 1.0)
        weights = (hard + soft - soft.detach())[exists]
        table, first = (quantized(t, bits) for t in tables())
        size = (masked.softmax(1) * price).sum()
        return loss(log_joint(placed[batch], table, first, weights), y[batch]) + size_penalty * size

    parameters = [{"params": list(tables.parameters()), "lr": schedule.lr}, {"params": [scores], "lr": _STRUCTURE_LR}]
    _descend(parameters, step, len(y), schedule)
    best = scores.detach().masked_fill(~exists, -math.inf).argmax(1)
    return [chosen[int(k)] for chosen, k in zip(choices, best, strict=True)]


def _log_prior(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    return np.log(np.bincount(labels, minlength=classes) / len(labels))


def _descend(groups: list[dict[str, Any]], step: Callable[[Tensor, float], Tensor], n: int, schedule: Schedule) -> None:
    """Adam over shuffled batches, the learning rates falling log-linearly; `step` gives the loss of a batch."""
    optimizer = torch.optim.Adam(groups)
    first = [group["lr"] for group in optimizer.param_groups]
    order = torch.Generator().manual_seed(schedule.seed)
    for epoch in range(schedule.epochs):
        progress = epoch / max(schedule.epochs - 1, 1)
        for group, lr in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = lr * _DECAY**progress
        for batch in torch.randperm(n, generator=order).split(schedule.batch_size):
            optimizer.zero_grad()
            step(batch, progress).backward()
            optimizer.step()
