"""What a network does not know, and why: total, aleatoric and epistemic uncertainty of its predictions.

"Decomposition of Uncertainty in Bayesian Deep Learning" (Depeweg et al., 2018): with p_s the class probabilities of
sample s, total = H(mean p_s), aleatoric = mean H(p_s), and epistemic, the mutual information of label and weights,
what is left of the total.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from netfit.errors import ConfigError

from ._gaussian import Gaussian

__all__ = ["Uncertainty", "uncertainty"]


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Predictions with their uncertainties, from whatever method; entropies in nats.

    Attributes:
        probs: (batch, classes), mean class probabilities.
        total: (batch,), entropy of `probs`.
        aleatoric: (batch,), mean entropy: the label itself is uncertain.
        epistemic: (batch,), mutual information: the network is uncertain.
        var: (batch,), mean over the classes of the logits' variance.
    """

    probs: Tensor
    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    var: Tensor

    @property
    def prediction(self) -> Tensor:
        """The likeliest class, int64 (batch,)."""
        return self.probs.argmax(1)

    def __len__(self) -> int:
        return len(self.probs)

    def bits(self) -> "Uncertainty":
        """The same with entropies in bits."""
        total, aleatoric, epistemic = (x / math.log(2) for x in (self.total, self.aleatoric, self.epistemic))
        return Uncertainty(self.probs, total, aleatoric, epistemic, self.var)


def join(parts: Sequence[Uncertainty]) -> Uncertainty:
    """Several batches as one."""
    columns = {f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Uncertainty)}
    return Uncertainty(**columns)


@torch.no_grad()
def uncertainty(given: Tensor | Gaussian, *, n_samples: int = 100, seed: int = 0) -> Uncertainty:
    """Decompose the uncertainty of logits.

    Args:
        given: logits (batch, classes) of one network, samples of them (samples, batch, classes), or a `Gaussian` of
            shape (batch, classes), which is sampled; with its full covariance where it has one.
        n_samples: draws from a Gaussian. All images share the standard normal draws, so a result does not depend on
            the rest of its batch.
        seed: of the draws.

    Raises:
        ConfigError: the shape does not fit, a number is not finite, or a variance is negative.

    >>> u = uncertainty(torch.tensor([[[9.0, 0.0]], [[0.0, 9.0]]]))
    >>> round(float(u.total), 2), round(float(u.aleatoric), 2), round(float(u.epistemic), 2)
    (0.69, 0.0, 0.69)
    """
    if isinstance(given, Gaussian):
        logits, var = _draws(given.check(), n_samples, seed), given.var
    else:
        if not isinstance(given, Tensor) or given.dim() not in (2, 3):
            shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ConfigError(f"logits of shape {shape}: give (batch, classes) or (samples, batch, classes)")
        if not bool(given.isfinite().all()):
            raise ConfigError(f"{int((~given.isfinite()).sum())} of {given.numel()} logits are not finite")
        samples = given[None] if given.dim() == 2 else given
        logits, var = samples.permute(1, 2, 0), samples.var(0, correction=0)
    spread = logits.new_zeros(len(logits)) if var is None else var.mean(1)
    return _decompose(logits, spread)


def _draws(given: Gaussian, n: int, seed: int) -> Tensor:
    """(batch, classes, n)."""
    mean, var, cov = given
    if n < 2 or mean.dim() != 2:
        raise ConfigError(f"{n} draws of logits of shape {tuple(mean.shape)}: give (batch, classes) and 2 at least")
    if var is None:
        return mean[:, :, None]
    noise = torch.randn(mean.shape[1], n, generator=torch.Generator().manual_seed(seed), dtype=mean.dtype)
    if cov is None:
        return mean[:, :, None] + var.sqrt()[:, :, None] * noise
    jitter = 1e-6 * var.amax(1).clamp_min(torch.finfo(var.dtype).tiny)
    factor = torch.linalg.cholesky(cov + torch.diag_embed(jitter[:, None].expand_as(var)))
    return torch.baddbmm(mean[:, :, None], factor, noise.expand(len(mean), -1, -1))


def _decompose(logits: Tensor, var: Tensor) -> Uncertainty:
    """Of logits (batch, classes, samples)."""
    log = logits.log_softmax(1)
    p = log.exp()
    aleatoric = -(p * log).sum(1).mean(1)
    mean = p.mean(2)
    total = torch.special.entr(mean).sum(1)
    # Rounding must not make a mutual information negative.
    return Uncertainty(mean, total, aleatoric, (total - aleatoric).clamp_min(0), var)
