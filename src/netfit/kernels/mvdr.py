"""Recursive covariances of speech and noise and their minimum variance filters, for all frequencies at once.

Plain functions that change their state in place, and no torch operators: a call through the dispatcher costs as much
as the work on one frame.
"""

import ctypes
import functools
import os

import torch
from torch import Tensor

from netfit.errors import ConfigError, TargetError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import source, warn_once

__all__ = ["MOST_CHANNELS", "filters", "follow", "matrices", "start"]

MOST_CHANNELS = 16
_FLOOR = 1e-10  # of the mean power over frequencies
_TINY = 1e-30


def start(channels: int, bins: int) -> Tensor:
    """Covariances before the first frame.

    Args:
        channels: 1 to 16.
        bins: frequencies.

    Returns:
        Zeros, float64 (2, 2, pairs, bins): speech and noise, real and imaginary parts, the pairs (i, j >= i) of
        channels row by row.

    Raises:
        ConfigError: more than 16 channels.
    """
    if not 1 <= channels <= MOST_CHANNELS:
        raise ConfigError(f"{channels} channels of a covariance: allowed are 1 to {MOST_CHANNELS}")
    return torch.zeros(2, 2, channels * (channels + 1) // 2, bins, dtype=torch.float64)


def follow(R: Tensor, y: Tensor, mask: Tensor, keep: float) -> None:
    """Take one frame into the covariances, in place: R = keep R + share^2 y y^H / |y|.

    The mask is the share of speech, what it leaves that of noise; |y| is the root mean square over channels.

    Args:
        R: from `start`.
        y: spectrum of the frame, complex128 (channels, bins).
        mask: float64 (bins,), 0 to 1.
        keep: 0 to 1.

    Raises:
        ConfigError: shapes or types do not fit each other.
    """
    m = _channels(R)
    if y.shape != (m, R.shape[3]) or mask.shape != R.shape[3:] or (y.dtype, mask.dtype) != (_COMPLEX, _REAL):
        found = f"{tuple(y.shape)} {y.dtype} and {tuple(mask.shape)} {mask.dtype}"
        raise ConfigError(f"a frame and mask of {found}: expected complex128 ({m}, {R.shape[3]}) and float64")
    if library := _library():
        y, mask = y.contiguous(), mask.contiguous()
        library.follow(m, R.shape[3], y.data_ptr(), mask.data_ptr(), keep, _TINY, R.data_ptr())
        return
    i, j = torch.triu_indices(m, m)
    size = y.abs().square().mean(0).sqrt().clamp(min=_TINY)
    product = y[i] * y[j].conj() / size
    shares = torch.stack([mask, 1 - mask]).square()[:, None, None]
    R.mul_(keep).add_(shares * torch.stack([product.real, product.imag]))


def filters(R: Tensor, ref: int = 0, load: float = 1e-5) -> Tensor:
    """Minimum variance distortionless filters of the covariances.

    "On Optimal Frequency-Domain Multichannel Linear Filtering for Noise Reduction", Souden et al., 2010.

    Args:
        R: from `follow`.
        ref: channel whose speech the output estimates.
        load: diagonal loading of the noise, relative to its power.

    Returns:
        complex128 (channels, bins), to be applied as the sum over channels of conj(w) y.

    Raises:
        ConfigError: no such channel.
    """
    m, bins = _channels(R), R.shape[3]
    if not 0 <= ref < m:
        raise ConfigError(f"reference {ref} is none of the {m} channels 0 to {m - 1}")
    if library := _library():
        w = torch.empty(m, bins, dtype=_COMPLEX)
        library.mvdr(m, bins, R.data_ptr(), ref, load, _FLOOR, _TINY, w.data_ptr())
        return w
    speech, noise = matrices(R)
    power = noise.diagonal(dim1=1, dim2=2).real.mean(1)
    level = load * power + _FLOOR * power.mean() + _TINY
    W = torch.linalg.solve(noise + level[:, None, None] * torch.eye(m), speech)
    trace = W.diagonal(dim1=1, dim2=2).sum(1).real.clamp(min=_TINY)
    return (W[..., ref] / trace[:, None]).T.contiguous()


def matrices(R: Tensor) -> Tensor:
    """The covariances as matrices, complex128 (2, bins, channels, channels): speech and noise.

    Example:
        >>> R = start(2, 1)
        >>> follow(R, torch.tensor([[2j], [2.0 + 0j]], dtype=torch.complex128), torch.ones(1).double(), keep=0.9)
        >>> matrices(R)[0, 0].tolist()
        [[(2+0j), 2j], [-2j, (2+0j)]]
    """
    m = _channels(R)
    i, j = torch.triu_indices(m, m)
    full = torch.empty(2, R.shape[3], m, m, dtype=_COMPLEX)
    upper = torch.complex(R[:, 0], R[:, 1]).transpose(1, 2)
    full[:, :, j, i] = upper.conj()
    full[:, :, i, j] = upper
    return full


_COMPLEX, _REAL = torch.complex128, torch.float64


def _channels(R: Tensor) -> int:
    m = int((2 * R.shape[2]) ** 0.5) if R.ndim == 4 else 0
    if R.ndim != 4 or R.shape[:3] != (2, 2, m * (m + 1) // 2) or R.dtype != _REAL or not R.is_contiguous():
        raise ConfigError(f"covariances of shape {tuple(R.shape)} and {R.dtype}: make them with start()")
    return m


def _library() -> ctypes.CDLL | None:
    # Asked on every call, so that a test or a user can switch kernels off without a new process.
    return None if os.environ.get("NETFIT_CC") == "none" else _built()


@functools.cache
def _built() -> ctypes.CDLL | None:
    try:
        library = compile_c(source("mvdr.c"), "mvdr", ("-ffp-contract=fast",))
    except TargetError as e:
        warn_once(str(e))
        return None
    sizes, pointer, real = [ctypes.c_int64] * 2, ctypes.c_void_p, ctypes.c_double
    library.follow.argtypes = [*sizes, pointer, pointer, real, real, pointer]
    library.mvdr.argtypes = [*sizes, pointer, ctypes.c_int64, real, real, real, pointer]
    library.follow.restype = library.mvdr.restype = None
    return library
