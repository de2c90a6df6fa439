"""Scale-invariant signal-to-distortion ratio."""

import torch
from torch import Tensor

from netfit.errors import ConfigError

__all__ = ["si_sdr"]


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB; more is better.

    "SDR - Half-Baked or Well Done?", Le Roux et al., 2019; means are removed first.

    Args:
        estimate: (..., n).
        reference: (..., n), not silent.

    Returns:
        (...), fp64.

    Raises:
        ConfigError: lengths differ, or the reference is silent.

    >>> x = torch.tensor([1.0, -1.0, 1.0, -1.0])
    >>> float(si_sdr(3 * x + torch.tensor([3.0, 3.0, -3.0, -3.0]), x).round())
    0.0
    """
    if estimate.shape[-1] != reference.shape[-1]:
        raise ConfigError(
            f"estimate of {estimate.shape[-1]} samples, reference of {reference.shape[-1]}: cut them alike"
        )
    e, r = (x.double() - x.double().mean(-1, keepdim=True) for x in (estimate, reference))
    power = r.square().sum(-1, keepdim=True)
    if (power == 0).any():
        raise ConfigError("the reference is silent: SI-SDR is not defined")
    target = (e * r).sum(-1, keepdim=True) / power * r
    return 10 * torch.log10(target.square().sum(-1) / (e - target).square().sum(-1).clamp(min=1e-30))
