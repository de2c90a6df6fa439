"""Augmentation of whole batches on tensors, drawn from a generator of its own."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from netfit.errors import ConfigError, did_you_mean

Augment = Callable[[Tensor, Generator], Tensor]


def _gather(x: Tensor, generator: Generator, pad: int, flip: bool) -> Tensor:
    """Shift every image by up to ``pad`` pixels each way, mirror half of them; one gather for the batch."""
    n, _, height, width = x.shape
    top, left = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    if flip:
        mirrored = torch.rand((n, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(x, (pad, pad, pad, pad))
    image = torch.arange(n)[:, None, None]
    # The indexed axes come first, so the result is (n, H, W, C): channels_last memory for free.
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop(x: Tensor, generator: Generator) -> Tensor:
    """Random crop after zero padding by an eighth of the side: 4 pixels for 32, 1 for 8."""
    return _gather(x, generator, pad=max(1, x.shape[-1] // 8), flip=False)


def crop_flip(x: Tensor, generator: Generator) -> Tensor:
    """Random crop as ``crop``, and a mirror image half of the time; for natural images."""
    return _gather(x, generator, pad=max(1, x.shape[-1] // 8), flip=True)


AUGMENTATIONS: dict[str, Augment] = {"crop": crop, "crop-flip": crop_flip}


def augmentation(augment: str | Augment | None, x: Tensor) -> Augment | None:
    """The function behind a name, or the user's own.

    Raises:
        ConfigError: unknown name, or a built-in augmentation of something that is not a batch of images.
    """
    if augment is None or callable(augment):
        return augment
    if augment not in AUGMENTATIONS:
        raise ConfigError(f"unknown augmentation {augment!r}; {did_you_mean(augment, AUGMENTATIONS)}")
    if x.dim() != 4:
        raise ConfigError(f"augmentation {augment!r} needs images (n, C, H, W), not {tuple(x.shape)}")
    return AUGMENTATIONS[augment]
