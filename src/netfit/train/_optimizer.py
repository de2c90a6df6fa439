"""The two optimizers, and the one-cycle schedule they run under."""

import math

import torch
from torch import nn

from netfit.errors import ConfigError, did_you_mean

OPTIMIZERS = ("sgd", "adam")
MOMENTUM = 0.9
WARM_UP = 0.3  # share of all steps in which the rate rises
START, END = 1 / 25, 1 / 25e4  # first and last rate, as parts of the peak


def optimizer_of(name: str, model: nn.Module, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or Adam over the parameters that are not frozen; only matrices and kernels decay.

    Decay of biases, normalisation scales and learned quantizer steps would pull them to 0, which is no prior
    anyone holds for them.

    Raises:
        ConfigError: unknown name, or every parameter is frozen.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"unknown optimizer {name!r}; {did_you_mean(name, OPTIMIZERS)}")
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ConfigError("the model has no parameter to train: every one has requires_grad=False")
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    used = [g for g in groups if g["params"]]
    if name == "adam":
        return torch.optim.Adam(used, lr=0.0)
    return torch.optim.SGD(used, lr=0.0, momentum=MOMENTUM, nesterov=True)


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate at one step: up along a half cosine, then down along another.

    A plain function of the step, so that a resumed fit needs no scheduler state. The shape and the constants are
    torch's ``OneCycleLR``: "Super-convergence: very fast training of neural networks using large learning
    rates", 2018.

    Args:
        step: 0 to ``steps`` - 1.
        steps: of the whole fit.
        peak: highest rate.

    >>> [round(one_cycle(step, steps=10, peak=1.0), 3) for step in (0, 1, 2, 9)]
    [0.04, 0.52, 1.0, 0.0]
    """
    top = WARM_UP * steps - 1
    if step <= top:
        first, last, part = START, 1.0, step / top
    else:
        first, last, part = 1.0, END, (step - top) / (steps - 1 - top)
    return peak * (last + (first - last) * (1 + math.cos(math.pi * part)) / 2)
