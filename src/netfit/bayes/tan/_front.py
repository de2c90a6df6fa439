"""Two families on one table: Bayesian-network classifiers and quantized networks, by error, bytes and operations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from netfit.bayes.tan._classifier import TANClassifier
from netfit.surgery import Policy, Quantize, apply, calibrate
from netfit.train import evaluate, fit
from netfit.workload import trace

__all__ = ["Point", "Split", "bayesian_points", "measured", "mlp_points"]

_CALIBRATION = 512  # samples that set the ranges of a network's activations


@dataclass(frozen=True)
class Split:
    """Training and test samples of one table: x (n, features), y class numbers from 0 without gaps (n,)."""

    x: NDArray[Any]
    y: NDArray[np.int64]
    x_test: NDArray[Any]
    y_test: NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """One classifier, measured on the test samples.

    Args:
        family: ``"TAN"`` or ``"MLP"``.
        name: what distinguishes it within its family.
        error: share of wrong answers, 0 to 1.
        bytes: of all parameters at their stored widths.
        operations: additions (TAN) or multiply-accumulates (MLP) of one prediction.
        parameters: how many are stored.
    """

    family: str
    name: str
    error: float
    bytes: int
    operations: int
    parameters: int


def bayesian_points(
    data: Split, *, penalties: Sequence[float], bits: Sequence[tuple[int, int] | None], epochs: int, seed: int,
    **settings: Any,
) -> Iterator[tuple[Point, TANClassifier]]:  # fmt: skip
    """Learned structures at each size penalty and width, trained with the hybrid loss.

    Args:
        data: the table.
        penalties: of a table entry, in nats.
        bits: integer and fractional bits of the tables; None for 32-bit floating point.
        epochs: of each training.
        seed: of each training.
        settings: further arguments of `TANClassifier`.
    """
    for penalty in penalties:
        for width in bits:
            model = TANClassifier(
                structure="learned", loss="hybrid", size_penalty=penalty, bits=width, epochs=epochs,
                handle_unknown="uniform", random_state=seed, **settings,
            ).fit(data.x, data.y)  # fmt: skip
            name = f"size penalty {penalty:g}, " + ("fp32" if width is None else f"{sum(width)} bit")
            yield measured(model, data, name), model


def measured(model: TANClassifier, data: Split, name: str) -> Point:
    """What a fitted classifier costs and how often it is wrong; one number of its tables takes its bits and no more."""
    width = 32 if model.bits is None else sum(model.bits)
    classes = len(model.classes_)
    stored = model.n_parameters_ + classes
    error = 1 - float(model.score(data.x_test, data.y_test))
    return Point("TAN", name, error, -(-stored * width // 8), len(model.parents_) * classes, stored)


def mlp_points(
    data: Split, *, hidden: Sequence[int], precisions: Sequence[str], epochs: int, seed: int, lr: float = 0.05
) -> Iterator[Point]:
    """Networks of one hidden layer, trained as quantized, on standardised features; a missing value is the mean.

    Args:
        data: the table.
        hidden: widths of the hidden layer.
        precisions: of both layers, names as in `Quantize.of`.
        epochs: of each training.
        seed: of weights and order.
        lr: peak learning rate.
    """
    mean, std = np.nanmean(data.x, axis=0), np.nanstd(data.x, axis=0)
    std[std == 0] = 1
    scaled = [np.nan_to_num((part - mean) / std).astype(np.float32) for part in (data.x, data.x_test)]
    x, x_test = map(torch.from_numpy, scaled)
    y, y_test = torch.from_numpy(data.y), torch.from_numpy(data.y_test)
    classes = int(data.y.max()) + 1
    for width in hidden:
        for precision in precisions:
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, classes))
            chosen = Quantize.of(precision)
            model = apply(net, Policy({"kind:linear": [chosen]}), x[:2])
            calibrate(model, [x[:_CALIBRATION]])
            fit(model, (x, y), epochs=epochs, lr=lr, batch_size=128, weight_decay=1e-4, seed=seed, precision="fp32")
            plain = trace(net, x[:1])
            stored = plain.stored_bytes({op.name: chosen.weight_bits for op in plain if op.kind == "linear"})
            macs = sum(op.macs for op in plain)
            parameters = sum(p.numel() for p in net.parameters())
            error = 1 - evaluate(model, x_test, y_test)
            yield Point("MLP", f"{width} hidden, {precision}", error, stored, macs, parameters)
