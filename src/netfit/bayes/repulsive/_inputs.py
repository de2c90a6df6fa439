"""Inputs to disagree on: what no longer shows its label."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from netfit.errors import ConfigError

__all__ = ["Cutmix", "PatchShuffle", "Repulsion", "UniformNoise"]


class Repulsion(Protocol):
    """Makes inputs to disagree on from training inputs (batch, ...), drawing from a generator."""

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """As many inputs of the same shape."""


@dataclass(frozen=True)
class PatchShuffle:
    """Cut images into patches and put each image's patches together at random.

    Args:
        patch: height and width of a patch; must divide the image's.

    Raises:
        ConfigError: the patch is not positive, or (when called) does not divide the image.
    """

    patch: int = 7

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise ConfigError(f"patch={self.patch} of a shuffle: choose 1 or more pixels")

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Shuffled images (batch, channels, height, width)."""
        p = self.patch
        if x.dim() != 4 or x.shape[2] % p or x.shape[3] % p or x.shape[2] * x.shape[3] == p * p:
            raise ConfigError(f"patches of {p} do not cut inputs {tuple(x.shape)} into several equal parts")
        b, c, h, w = x.shape
        parts = x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        order = torch.rand(parts.shape[:2], generator=generator).argsort(1)
        mixed = parts[torch.arange(b)[:, None], order]
        return mixed.reshape(b, h // p, w // p, c, p, p).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


@dataclass(frozen=True)
class UniformNoise:
    """Numbers between the least and the largest of the batch."""

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Noise of the shape of `x`."""
        low, high = x.min(), x.max()
        return low + (high - low) * torch.rand(x.shape, generator=generator, dtype=x.dtype)


@dataclass(frozen=True)
class Cutmix:
    """A random rectangle of another image in each: "CutMix: Regularization Strategy ..." (Yun et al., 2019)."""

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Mixed images (batch, channels, height, width)."""
        if x.dim() != 4:
            raise ConfigError(f"Cutmix takes images, not inputs {tuple(x.shape)}")
        h, w = x.shape[2:]
        side = 0.3 + 0.4 * torch.rand(2, generator=generator)  # 9 to 49 % of the area
        height, width = max(1, int(h * side[0])), max(1, int(w * side[1]))
        top = int(torch.randint(0, h - height + 1, (), generator=generator))
        left = int(torch.randint(0, w - width + 1, (), generator=generator))
        out = x.clone()
        other = x[torch.randperm(len(x), generator=generator)]
        out[:, :, top : top + height, left : left + width] = other[:, :, top : top + height, left : left + width]
        return out
