"""`grad_fidelity`: how far compressed activations turn the gradient, layer by layer, before training starts."""

from dataclasses import dataclass

import torch

from ._compress import CodecPolicy
from ._prices import gradients, relative_error
from ._step import TrainingStep

__all__ = ["Fidelity", "grad_fidelity"]


@dataclass(frozen=True)
class Fidelity:
    """Gradients under a policy beside the exact ones.

    Args:
        error: norm of the difference over the norm, by parameter.
        cosine: of the angle between the two, by parameter; 1 where both are zero.
        total: relative error of all parameters together.
    """

    error: dict[str, float]
    cosine: dict[str, float]
    total: float

    def worst(self, n: int = 5) -> list[tuple[str, float]]:
        """Parameters whose gradient is furthest off."""
        return sorted(self.error.items(), key=lambda item: -item[1])[:n]


def grad_fidelity(step: TrainingStep, policy: CodecPolicy, *, seed: int = 0) -> Fidelity:
    """Compare the gradients of one batch with and without a policy; the model is as before.

    Args:
        step: model, a real batch and loss.
        policy: see `compress_saved`.
        seed: of random rounding and dropout.

    Example:
        >>> step = TrainingStep(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()), torch.randn(99, 64))
        >>> grad_fidelity(step, "lossless").total
        0.0
    """
    exact, _ = gradients(step, None, seed)
    found, _ = gradients(step, policy, seed)
    error = {name: relative_error({name: g}, {name: found[name]}) for name, g in exact.items()}
    cosine = {name: _cosine(g, found[name]) for name, g in exact.items()}
    return Fidelity(error, cosine, relative_error(exact, found))


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    if not (a.any() or b.any()):
        return 1.0
    return float(torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0, eps=1e-300))
