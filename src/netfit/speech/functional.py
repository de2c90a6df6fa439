"""Beamformers as functions of spatial covariances: tensors in, tensors out, any number of microphones from two on.

Shapes: M microphones, F frequencies, T frames, any leading batch dimensions. A covariance is complex (..., F, M, M), a
filter complex (..., F, M); filters are applied as w^H y. Everything is done per frequency and keeps the dtype given.
"""

import torch
from torch import Tensor

from netfit.errors import ConfigError

__all__ = ["apply", "ban", "gev", "load", "mvdr", "pan", "power_iteration", "scm"]

_TINY = 1e-30  # below the power of anything recorded; keeps digital silence from dividing by zero
_FLOOR = 1e-10  # of the mean power over frequencies: bins that hold nothing get a covariance all the same


def scm(Y: Tensor, mask: Tensor) -> Tensor:
    """Spatial covariance of what a mask selects.

    Args:
        Y: complex (..., M, F, T), a short-time spectrum.
        mask: real (..., F, T), weight of every bin.

    Returns:
        (..., F, M, M): sum of m y y^H over the frames, divided by the sum of m.

    Raises:
        ConfigError: the mask does not fit the spectrum.

    >>> Y = torch.ones(2, 1, 3, dtype=torch.complex64)
    >>> scm(Y, torch.ones(1, 3))[0].real.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    if Y.ndim < 3 or mask.shape != Y.shape[:-3] + Y.shape[-2:]:
        raise ConfigError(
            f"a mask of shape {tuple(mask.shape)} does not fit a spectrum (..., M, F, T) of shape {tuple(Y.shape)}"
        )
    weight = mask / mask.sum(-1, keepdim=True).clamp(min=_TINY)
    y = Y.transpose(-3, -2)
    return (y * weight.unsqueeze(-2)) @ y.mH


def load(R: Tensor, amount: float = 1e-5) -> Tensor:
    """Diagonal loading: R + amount * tr(R) / M * I, so that the covariance can be inverted.

    Args:
        R: complex (..., F, M, M).
        amount: relative to the mean power of a microphone at that frequency.
    """
    M = R.shape[-1]
    power = R.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    level = amount * power + _FLOOR * power.mean(-1, keepdim=True) + _TINY
    return R + level[..., None, None] * torch.eye(M, dtype=R.dtype, device=R.device)


def mvdr(Rs: Tensor, Rn: Tensor, ref: int = 0) -> Tensor:
    """Minimum variance distortionless response in the form that needs no steering vector.

    "On Optimal Frequency-Domain Multichannel Linear Filtering for Noise Reduction", Souden et al., 2010.

    Args:
        Rs: covariance of the speech, complex (..., F, M, M).
        Rn: covariance of the noise, invertible (see `load`).
        ref: microphone whose speech the output estimates.

    Returns:
        (..., F, M).

    Raises:
        ConfigError: fewer than two microphones, shapes that differ, or no such microphone.
    """
    _check(Rs, Rn, ref)
    W = torch.linalg.solve(Rn, Rs)
    trace = W.diagonal(dim1=-2, dim2=-1).sum(-1).real.clamp(min=_TINY)
    return W[..., ref] / trace[..., None]


def gev(Rs: Tensor, Rn: Tensor) -> Tensor:
    """Filter of the largest ratio of speech to noise power; its phase and magnitude are arbitrary at every frequency.

    "Blind Acoustic Beamforming Based on Generalized Eigenvalue Decomposition", Warsitz and Haeb-Umbach, 2007. Follow
    it by `pan` (or `ban`).

    Args:
        Rs: covariance of the speech, complex (..., F, M, M).
        Rn: covariance of the noise, positive definite (see `load`).

    Returns:
        (..., F, M), each filter of length one.

    Raises:
        ConfigError: fewer than two microphones, shapes that differ, or a noise covariance that is singular.
    """
    _check(Rs, Rn, 0)
    L, failed = torch.linalg.cholesky_ex(Rn)
    if failed.any():
        raise ConfigError("the noise covariance is not positive definite: pass it through functional.load first")
    half = torch.linalg.solve_triangular(L, Rs, upper=False)
    whitened = torch.linalg.solve_triangular(L, half.mH, upper=False)
    v = torch.linalg.eigh((whitened + whitened.mH) / 2)[1][..., -1:]
    w = torch.linalg.solve_triangular(L.mH, v, upper=True)[..., 0]
    return w / torch.linalg.vector_norm(w, dim=-1, keepdim=True).clamp(min=_TINY)


def ban(w: Tensor, Rn: Tensor) -> Tensor:
    """Blind analytic normalization: corrects the magnitude of a filter, leaves its phase.

    "Blind Acoustic Beamforming Based on Generalized Eigenvalue Decomposition", Warsitz and Haeb-Umbach, 2007.

    Args:
        w: complex (..., F, M).
        Rn: covariance of the noise, complex (..., F, M, M).
    """
    v = _times(Rn, w)
    gain = torch.linalg.vector_norm(v, dim=-1) / w.shape[-1] ** 0.5
    return w * (gain / _inner(w, v).real.clamp(min=_TINY))[..., None]


def pan(w: Tensor, Rn: Tensor, ref: int = 0) -> Tensor:
    """Phase-aware normalization: corrects magnitude and phase, so that speech passes as microphone `ref` hears it.

    With the steering vector v = Rn w, the result satisfies w^H v = v[ref]. "Resource Efficient Deep Eigenvector
    Beamforming", Zöhrer et al., 2018.

    Args:
        w: complex (..., F, M).
        Rn: covariance of the noise, complex (..., F, M, M).
        ref: microphone whose speech the output estimates.
    """
    v = _times(Rn, w)
    passed = _inner(w, v).real.clamp(min=_TINY)
    return w * (v[..., ref] / passed).conj()[..., None]


def apply(w: Tensor, Y: Tensor) -> Tensor:
    """Filter a spectrum: w^H y at every frequency and frame.

    Args:
        w: complex (..., F, M).
        Y: complex (..., M, F, T).

    Returns:
        (..., F, T).
    """
    return (w.conj().unsqueeze(-2) @ Y.transpose(-3, -2)).squeeze(-2)


def power_iteration(R: Tensor, v: Tensor, n: int = 2) -> Tensor:
    """Dominant eigenvector of a covariance by power iterations from a near one.

    Args:
        R: complex (..., M, M).
        v: where to start, complex (..., M).
        n: iterations.

    Returns:
        (..., M) of length one; `v` where R is zero.

    >>> R = torch.diag(torch.tensor([4.0, 1.0])).to(torch.complex64)
    >>> power_iteration(R, torch.ones(2, dtype=torch.complex64), n=20).abs().round().tolist()
    [1.0, 0.0]
    """
    for _ in range(n):
        u = _times(R, v)
        size = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        v = torch.where(size > _TINY, u / size.clamp(min=_TINY), v)
    return v


def _times(R: Tensor, w: Tensor) -> Tensor:
    return (R @ w.unsqueeze(-1)).squeeze(-1)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).sum(-1)


def _check(Rs: Tensor, Rn: Tensor, ref: int) -> None:
    if Rs.shape != Rn.shape or Rs.ndim < 2 or Rs.shape[-1] != Rs.shape[-2]:
        raise ConfigError(
            f"covariances (..., F, M, M) must have one shape, not {tuple(Rs.shape)} and {tuple(Rn.shape)}"
        )
    M = Rs.shape[-1]
    if M < 2:
        raise ConfigError(f"a beamformer needs >= 2 microphones, not {M}; use beamformer='none'")
    if not 0 <= ref < M:
        raise ConfigError(f"reference microphone {ref} is not one of the {M} microphones 0 to {M - 1}")
