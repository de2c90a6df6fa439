"""Dominant eigenvectors of recursive covariances, followed from frame to frame, for all frequencies at once."""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import custom_op, source

__all__ = ["MOST_CHANNELS", "start", "track"]

MOST_CHANNELS = 16
_STEPS = 2  # power iterations a frame, from the eigenvector of the frame before
_LEAST = 1e-15  # sum that counts as nothing

Result = tuple[Tensor, Tensor, Tensor]


def _check(y: Tensor, R: Tensor, v: Tensor) -> None:
    shapes = tuple(y.shape), tuple(R.shape), tuple(v.shape)
    if y.ndim != 4 or y.shape[1] != 2 or R.ndim != 4:
        raise ConfigError(f"frames of shape {shapes[0]}: expected (frames, 2, channels, bins)")
    m, bins = y.shape[2:]
    if not 1 <= m <= MOST_CHANNELS or shapes[1] != (2, m, m, bins) or shapes[2] != (2, m, bins):
        raise ConfigError(f"a state of shapes {shapes[1]} and {shapes[2]} does not fit {m} channels of {bins} bins")
    if {y.dtype, R.dtype, v.dtype} != {torch.float32}:
        raise ConfigError(f"frames and state must be float32, not {y.dtype}, {R.dtype} and {v.dtype}")


def _reference(y: Tensor, R: Tensor, v: Tensor, keep: float) -> tuple[Tensor, Tensor, Tensor]:
    _check(y, R, v)
    C, w = torch.complex(R[0], R[1]), torch.complex(v[0], v[1])
    turned, held = [], []
    for frame in y:
        x = torch.complex(frame[0], frame[1])
        C = keep * C + (1 - keep) * x[:, None] * x.conj()[None]
        before = w
        for _ in range(_STEPS):
            u = (C * w[None]).sum(1)
            size = torch.linalg.vector_norm(u, dim=0)
            w = torch.where(size > _LEAST, u / size.clamp(min=_LEAST), w)
        turned.append((w.conj() * before).sum(0).abs())
        power = torch.einsum("mmf->f", C).real + _LEAST
        held.append((w.conj() * (C * w[None]).sum(1)).sum(0).real / power)
    out = torch.stack([torch.stack(turned), torch.stack(held)]) if turned else y.new_empty(2, 0, y.shape[3])
    return out, torch.stack([C.real, C.imag]), torch.stack([w.real, w.imag])


def _fake(y: Tensor, R: Tensor, v: Tensor, keep: float) -> Result:
    return y.new_empty((2, y.shape[0], y.shape[3])), torch.empty_like(R), torch.empty_like(v)


def _native() -> Callable[..., Result]:
    function = compile_c(source("eigen.c"), "eigen", ("-ffp-contract=fast",)).track
    function.argtypes = [*[ctypes.c_int64] * 3, ctypes.c_void_p, *[ctypes.c_float] * 2, *[ctypes.c_void_p] * 3]

    def run(y: Tensor, R: Tensor, v: Tensor, keep: float) -> Result:
        _check(y, R, v)
        frames, _, m, bins = y.shape
        y, R, v = (
            y.contiguous(),
            R.clone(memory_format=torch.contiguous_format),
            v.clone(memory_format=torch.contiguous_format),
        )
        out = y.new_empty(2, frames, bins)
        function(frames, m, bins, y.data_ptr(), keep, _LEAST, R.data_ptr(), v.data_ptr(), out.data_ptr())
        return out, R, v

    return run


_track = custom_op("track_eigenvectors", _reference, native=_native, fake=_fake)


def start(channels: int, bins: int) -> tuple[Tensor, Tensor]:
    """State before the first frame: a covariance of zero, and an eigenvector that points everywhere.

    Args:
        channels: 1 to 16.
        bins: frequencies.

    Returns:
        float32 (2, channels, channels, bins) and (2, channels, bins), real and imaginary parts.
    """
    v = torch.zeros(2, channels, bins)
    v[0] = channels**-0.5
    return torch.zeros(2, channels, channels, bins), v


def track(y: Tensor, R: Tensor, v: Tensor, keep: float = 0.9) -> tuple[Tensor, Tensor, Tensor]:
    """Follow the dominant eigenvector of R_t = keep R_(t-1) + (1 - keep) y_t y_t^H by two power iterations a frame.

    Args:
        y: float32 (frames, 2, channels, bins), real and imaginary part of every frame.
        R: covariance so far, float32 (2, channels, channels, bins).
        v: its eigenvector so far, float32 (2, channels, bins).
        keep: 0 to 1.

    Returns:
        float32 (2, frames, bins): how little the eigenvector turned, |v_t^H v_(t-1)|, and the share of the power that
        it holds, v^H R v / tr R; then the covariance and the eigenvector after the last frame.

    Raises:
        ConfigError: shapes or types do not fit each other, or more than 16 channels.

    Example:
        >>> y = torch.ones(3, 2, 2, 1)
        >>> [float(value) for value in track(y, *start(2, 1))[0][:, -1].round(decimals=4)]
        [1.0, 1.0]
    """
    out: Result = _track(y, R, v, keep)
    return out
