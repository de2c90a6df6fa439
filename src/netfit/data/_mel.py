"""Log-mel spectrograms in numpy."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BANDS = 40
WINDOW_S, HOP_S = 0.032, 0.010
FLOOR = 1e-6  # about the quantization noise of 16-bit samples; silence stays finite


def log_mel(samples: NDArray[np.int16], sample_rate: int, frames: int) -> NDArray[np.float32]:
    """Log-mel image of the middle of a recording; a shorter one is padded with silence on both sides.

    Args:
        samples: int16 (n,).
        sample_rate: Hz.
        frames: width of the image; one frame every 10 ms, each 32 ms long.

    Returns:
        float32 (40, frames), natural logarithm of the power in each mel band.
    """
    size, hop = round(WINDOW_S * sample_rate), round(HOP_S * sample_rate)
    needed = size + (frames - 1) * hop
    start = (len(samples) - needed) // 2
    wave = np.zeros(needed, np.float64)
    part = samples[max(start, 0) : max(start, 0) + needed]
    wave[max(-start, 0) : max(-start, 0) + len(part)] = part / 32768
    windows = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop]
    power = np.abs(np.fft.rfft(windows * np.hanning(size))) ** 2 / size
    return np.log(power @ mel_filters(sample_rate, size) + FLOOR).T.astype(np.float32)


@cache
def mel_filters(sample_rate: int, size: int) -> NDArray[Any]:
    """Triangular filters (size // 2 + 1, 40), evenly spaced on the mel scale from 20 Hz to half the rate."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)  # mel scale of O'Shaughnessy, 1987
    bottom = 2595 * np.log10(1 + 20 / 700)
    edges = 700 * (10 ** (np.linspace(bottom, top, BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))
