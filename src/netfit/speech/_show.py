"""What a page shows and plays of a recording: coarse pictures and short sounds, as JSON values."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._stft import STFT
from .files import data_uri

__all__ = ["page_facts"]

_COLUMNS, _ROWS = 100, 40
_PLAYED_S = 15
_RANGE_DB = 60


def page_facts(noisy: Tensor, clean: Tensor, mask: Tensor, fs: int) -> dict[str, Any]:
    """Sounds before and after, their spectrograms, and the mask.

    Args:
        noisy: one microphone, (n,).
        clean: the voice made of it, (n,).
        mask: (F, T).
        fs: samples a second.
    """
    n = _PLAYED_S * fs
    loudest = float(torch.stack([noisy[:n].abs().max(), clean[:n].abs().max()]).max().clamp(min=1e-9))
    stft = STFT(2 * (mask.shape[0] - 1), (mask.shape[0] - 1) // 2)
    frames = stft.frames(min(n, len(noisy)))
    return {
        "sounds": {"before": data_uri(noisy[:n] / loudest, fs), "after": data_uri(clean[:n] / loudest, fs)},
        "pictures": {
            "before": _spectrogram(noisy[:n], fs, stft),
            "after": _spectrogram(clean[:n], fs, stft),
            "mask": _mask_picture(mask[:, :frames], fs, stft.hop),
        },
    }


def _spectrogram(x: Tensor, fs: int, stft: STFT) -> dict[str, Any]:
    """Power in dB below the loudest spot: ``"x"`` in s, ``"y"`` in Hz, ``"values"`` one row a frequency."""
    grid = _coarse(stft(x).abs().square().numpy(), fs, stft.hop)
    values = 10 * np.log10(np.maximum(grid["values"], 1e-20))
    return grid | {"values": np.maximum(values - values.max(), -_RANGE_DB).round(1).tolist()}


def _mask_picture(mask: Tensor, fs: int, hop: int) -> dict[str, Any]:
    """Share of speech, 0 to 1, in the same form."""
    grid = _coarse(mask.float().numpy(), fs, hop)
    return grid | {"values": np.asarray(grid["values"]).round(3).tolist()}


def _coarse(values: Any, fs: int, hop: int) -> dict[str, Any]:
    """Means over bands of the mel scale and over stretches of time."""
    F, T = values.shape
    mel = np.linspace(0, 2595 * np.log10(1 + fs / 2 / 700), _ROWS + 1)
    edges = np.unique(np.round((10 ** (mel / 2595) - 1) * 700 / (fs / 2) * (F - 1)).astype(int))
    stretches = np.unique(np.linspace(0, T, min(_COLUMNS, T) + 1).astype(int))
    rows = np.stack([values[a:b].mean(0) for a, b in pairwise(edges)])
    cells = np.stack([rows[:, a:b].mean(1) for a, b in pairwise(stretches)], 1)
    hz = (edges[:-1] + edges[1:]) / 2 * fs / 2 / (F - 1)
    seconds = (stretches[:-1] + stretches[1:]) / 2 * hop / fs
    return {"x": seconds.round(3).tolist(), "y": hz.round(1).tolist(), "values": cells}
