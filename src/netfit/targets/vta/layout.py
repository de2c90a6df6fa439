"""Tensors in the layout of the accelerator: blocks of channels and images, one word each."""

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

from ._config import Config

__all__ = ["pack_image", "pack_weight", "unpack_image"]


def pack_image(x: NDArray[np.int8], config: Config) -> NDArray[np.int8]:
    """Image as words: (images / batch, channels / block_in, height, width) of (batch, block_in), zeros at the ends.

    Args:
        x: int8 (n, channels, height, width).
        config: the accelerator.

    Returns:
        int8 (words, batch, block_in).
    """
    return (
        _blocked(x, (config.batch, config.block_in))
        .transpose(0, 2, 4, 5, 1, 3)
        .reshape(-1, config.batch, config.block_in)
    )


def pack_weight(w: NDArray[np.int8], config: Config) -> NDArray[np.int8]:
    """Weights as words: (rows / block_out, channels / block_in, taps, taps) of (block_out, block_in).

    Args:
        w: int8 (rows, channels, taps_h, taps_w).
        config: the accelerator.

    Returns:
        int8 (words, block_out, block_in).
    """
    blocks = config.block_out, config.block_in
    return _blocked(w, blocks).transpose(0, 2, 4, 5, 1, 3).reshape(-1, *blocks)


def unpack_image(words: NDArray[np.int8], shape: tuple[int, int, int, int], config: Config) -> NDArray[np.int8]:
    """Result as a tensor.

    Args:
        words: int8 (words, batch, block_out).
        shape: (n, channels, height, width) of the tensor.
        config: the accelerator.

    Raises:
        ConfigError: another number of words.
    """
    n, c, h, w = shape
    blocks = -(-n // config.batch), -(-c // config.block_out)
    if len(words) != blocks[0] * blocks[1] * h * w:
        raise ConfigError(f"{len(words)} words are no image of {shape} on a VTA {config.name}")
    full = words.reshape(*blocks, h, w, config.batch, config.block_out).transpose(0, 4, 1, 5, 2, 3)
    return full.reshape(blocks[0] * config.batch, blocks[1] * config.block_out, h, w)[:n, :c]


def _blocked(x: NDArray[np.int8], blocks: tuple[int, int]) -> NDArray[np.int8]:
    if x.ndim != 4 or x.dtype != np.int8:
        raise ConfigError(f"a tensor of {x.dtype} {x.shape}: expected int8 with four axes")
    pads = [(0, -size % block) for size, block in zip(x.shape, blocks, strict=False)]
    full = np.pad(x, [*pads, (0, 0), (0, 0)])
    return full.reshape(-1, blocks[0], full.shape[1] // blocks[1], blocks[1], *x.shape[2:])
