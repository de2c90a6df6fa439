"""What the mask network sees: loudness and direction of every bin, frame after frame, from the past alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from netfit.kernels import eigen

__all__ = ["FEATURES", "FeatureState", "extract", "start", "width"]

FEATURES = ("magnitude", "eigen")
_LEVEL_FRAMES = 200  # over which levels are forgotten
_EPS = 1e-12


@dataclass(frozen=True)
class FeatureState:
    """All that later frames depend on.

    Attributes:
        level: mean log power of every frequency, (B, F).
        frames: frames seen.
        R: recursive covariances, (B, 2, M, M, F): real and imaginary part.
        v: their dominant eigenvectors, (B, 2, M, F).
    """

    level: Tensor
    frames: int
    R: Tensor
    v: Tensor


def width(names: tuple[str, ...]) -> int:
    """Values of a frame and a frequency."""
    return 2 * len(names)


def start(batch: int, mics: int, bins: int) -> FeatureState:
    """State before the first frame."""
    R, v = eigen.start(mics, bins)
    return FeatureState(torch.zeros(batch, bins), 0, R.expand(batch, *R.shape), v.expand(batch, *v.shape))


def extract(Y: Tensor, names: tuple[str, ...], state: FeatureState) -> tuple[Tensor, FeatureState]:
    """Features of the frames that follow a state.

    "magnitude" is the log power, mean of the microphones, less its running mean: once that of the frequency, which
    takes out the colour of the recording, once that of all frequencies, which takes out only its loudness. "eigen"
    tells how little the dominant eigenvector v of the recursive covariance R turned, |v_t^H v_(t-1)|, and how much of
    the power it holds, v^H R v / tr R. "Eigenvector-Based Speech Mask Estimation for Multi-Channel Speech
    Enhancement", Pfeifenberger et al., 2019.

    Args:
        Y: complex64 (B, M, F, T).
        names: of `FEATURES`, in the order wanted.
        state: from `start` or an earlier call.

    Returns:
        (B, T, width * F), and the state for the frames that follow.
    """
    columns: dict[str, list[Tensor]] = {}
    power = torch.log(Y.abs().square().mean(1) + _EPS).transpose(1, 2)  # (B, T, F)
    levels, level, frames = [], state.level, state.frames
    for frame in power.unbind(1):
        frames += 1
        level = level + (frame - level) / min(frames, _LEVEL_FRAMES)
        levels.append(level)
    mean = torch.stack(levels, 1)
    columns["magnitude"] = [power - mean, power - mean.mean(-1, keepdim=True)]
    R, v = state.R, state.v
    if "eigen" in names:
        parts = torch.stack([Y.real, Y.imag], 1).permute(0, 4, 1, 2, 3)  # (B, T, 2, M, F)
        found = [eigen.track(*one) for one in zip(parts, R, v, strict=True)]
        directions, R, v = (torch.stack(part) for part in zip(*found, strict=True))
        columns["eigen"] = list(directions.unbind(1))
    return torch.cat([c for name in names for c in columns[name]], -1), FeatureState(level, frames, R, v)
