"""The value that Bayesian networks compute with: a tensor of independent Gaussians."""

from typing import NamedTuple

from torch import Tensor

from netfit.errors import ConfigError

__all__ = ["Gaussian"]


class Gaussian(NamedTuple):
    """A tensor known up to its mean and variance.

    Attributes:
        mean: any shape.
        var: variance of each entry, of the same shape and not negative; None when the tensor is known exactly.
        cov: (batch, classes, classes), the covariance of logits (batch, classes), where it is known.

    >>> import torch
    >>> Gaussian(torch.zeros(2), torch.ones(2)).std()
    tensor([1., 1.])
    """

    mean: Tensor
    var: Tensor | None = None
    cov: Tensor | None = None

    def std(self) -> Tensor:
        """Standard deviations; zeros when the tensor is known exactly."""
        return self.mean.new_zeros(self.mean.shape) if self.var is None else self.var.sqrt()

    def check(self) -> "Gaussian":
        """Itself, if it is one.

        Raises:
            ConfigError: a mean or variance is not finite, a variance is negative, or the shapes differ.
        """
        if self.var is not None and self.var.shape != self.mean.shape:
            raise ConfigError(f"a mean of shape {tuple(self.mean.shape)} with variances {tuple(self.var.shape)}")
        for name, value in (("mean", self.mean), ("variance", self.var), ("covariance", self.cov)):
            if value is not None and not bool(value.isfinite().all()):
                raise ConfigError(f"{int((~value.isfinite()).sum())} numbers of a {name} are not finite")
        if self.var is not None and bool((self.var < 0).any()):
            raise ConfigError(f"{int((self.var < 0).sum())} variances are negative, the least is {self.var.min():.3g}")
        return self
