"""Refuse what cannot be trained before the first step, in words."""

import math

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError

from ._evaluate import modes


def check_numbers(*, epochs: int, lr: float, batch_size: int, weight_decay: float) -> None:
    """Raise ConfigError naming the first hyper-parameter that is out of range."""
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    if not (math.isfinite(lr) and lr > 0):
        raise ConfigError(f"lr must be a positive number, not {lr}")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ConfigError(f"weight_decay must be 0 or a positive number, not {weight_decay}")


def check_fits(model: nn.Module, x: Tensor, y: Tensor, teacher: nn.Module | None = None) -> None:
    """Raise ConfigError unless the model maps samples to logits that cover every label, and the teacher likewise."""
    if len(x) != len(y) or len(x) == 0:
        raise ConfigError(f"training needs as many inputs as labels, not {len(x)} and {len(y)}")
    several = y.is_floating_point() and y.dim() == 2
    if not several and (y.dtype != torch.int64 or y.dim() != 1):
        raise ConfigError(f"labels must be int64 (n,), not {y.dtype} {tuple(y.shape)}")
    outputs = _outputs("model", model, x)
    if several and (y.shape[1] != outputs or not (y.min() >= 0 and y.max() <= 1)):
        raise ConfigError(f"the model gives {outputs} outputs: targets must be (n, {outputs}) from 0 to 1")
    if not several and (y.min() < 0 or y.max() >= outputs):
        raise ConfigError(
            f"the model gives {outputs} outputs but labels go from {int(y.min())} to {int(y.max())}; "
            "build it with the right num_classes"
        )
    if teacher is not None and (taught := _outputs("teacher", teacher, x)) != outputs:
        raise ConfigError(f"the model gives {outputs} outputs but its teacher {taught}")


def _outputs(role: str, model: nn.Module, x: Tensor) -> int:
    """Number of logits a model gives for two of the samples."""
    try:
        with torch.no_grad(), modes(model):
            out = model(x[:2])
    except (RuntimeError, ValueError, TypeError) as e:
        reason = str(e).strip().partition("\n")[0]
        raise ConfigError(f"the {role} does not accept inputs of shape {tuple(x.shape[1:])}: {reason}") from e
    if not isinstance(out, Tensor) or out.dim() != 2:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ConfigError(f"the {role} must give logits (batch, classes), not {found}")
    return out.shape[1]
