"""Moving all factors of a chain at once, after the closed form: towards the matrix, or towards its outputs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._multiply import ks_multiply

__all__ = ["refined", "root"]


def refined(factors: Sequence[Tensor], weight: Tensor, inputs: Tensor, steps: int) -> tuple[Tensor, ...]:
    """L-BFGS on the squared difference of the outputs.

    Args:
        factors: where to start, first applied first.
        weight: (out, in), what the product should be.
        inputs: (in, samples), what it is judged on.
        steps: of L-BFGS.

    Returns:
        The factors, or those given when no step made them better.
    """
    wanted = weight @ inputs
    scale = 1 / torch.linalg.vector_norm(wanted).square().clamp_min(torch.finfo(wanted.dtype).tiny)
    moved = [f.clone().requires_grad_() for f in factors]
    search = torch.optim.LBFGS(moved, max_iter=steps, history_size=10, line_search_fn="strong_wolfe",
                               tolerance_grad=0.0, tolerance_change=0.0)  # fmt: skip

    def loss() -> Tensor:
        near = ks_multiply(inputs, moved, out_features=len(weight), layout="feature_first")
        return (near - wanted).abs().square().sum() * scale

    def closure() -> Tensor:
        search.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        before = float(loss().detach())
        search.step(closure)
    with torch.no_grad():
        after = float(loss())
    return tuple(f.detach() for f in moved) if after < before else tuple(factors)


def root(covariance: Tensor) -> Tensor:
    """The symmetric square root of second moments; what rounding made negative counts as zero."""
    values, vectors = torch.linalg.eigh((covariance + covariance.mH) / 2)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mH
