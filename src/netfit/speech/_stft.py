"""Short-time spectra that a stream and a file see alike: one window, one hop, zeros before the first sample."""

from dataclasses import dataclass

import torch
from torch import Tensor

from netfit.errors import ConfigError

__all__ = ["STFT"]


@dataclass(frozen=True)
class STFT:
    """Analysis and synthesis with the square root of a Hann window; the second undoes the first exactly.

    Args:
        fft: samples of a frame, even.
        hop: samples between frames; divides `fft` at least twice over.

    Raises:
        ConfigError: sizes that do not overlap to a constant.

    >>> x = torch.randn(2, 1000)
    >>> spectrum = STFT(64, 16)
    >>> bool((spectrum.inverse(spectrum(x), 1000) - x).abs().max() < 1e-5)
    True
    """

    fft: int = 1024
    hop: int = 256

    def __post_init__(self) -> None:
        if self.hop < 1 or self.fft < 2 * self.hop:
            raise ConfigError(f"fft={self.fft} and hop={self.hop}: a frame must hold at least two hops")
        if self.fft % self.hop or self.fft % 2:
            raise ConfigError(f"fft={self.fft} and hop={self.hop}: fft must be even and a multiple of hop")

    @property
    def bins(self) -> int:
        """Frequencies of a frame."""
        return self.fft // 2 + 1

    def window(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Square root of the periodic Hann window, scaled so that its overlapped squares sum to one."""
        hann = torch.hann_window(self.fft, dtype=torch.float64) * (2 * self.hop / self.fft)
        return hann.sqrt().to(dtype)

    def frames(self, samples: int) -> int:
        """Frames that cover a signal of that length."""
        return -(-samples // self.hop) + self.fft // self.hop - 1

    def __call__(self, x: Tensor) -> Tensor:
        """Spectrum of a signal.

        Args:
            x: real (..., n).

        Returns:
            Complex (..., F, T); frame t ends with sample (t + 1) * hop.
        """
        lead = self.fft - self.hop
        tail = self.frames(x.shape[-1]) * self.hop - x.shape[-1]
        pieces = torch.nn.functional.pad(x, (lead, tail)).unfold(-1, self.fft, self.hop)
        return torch.fft.rfft(pieces * self.window(x.dtype)).transpose(-1, -2)

    def inverse(self, Y: Tensor, samples: int) -> Tensor:
        """Signal of a spectrum.

        Args:
            Y: complex (..., F, T).
            samples: length of the signal.

        Returns:
            Real (..., samples).
        """
        frames = torch.fft.irfft(Y.transpose(-1, -2), n=self.fft)
        frames = frames * self.window(frames.dtype)
        lead, T = frames.shape[:-2], frames.shape[-2]
        total = (T - 1) * self.hop + self.fft
        rows = frames.reshape(-1, T, self.fft).transpose(1, 2)
        out = torch.nn.functional.fold(rows, (1, total), (1, self.fft), stride=(1, self.hop))
        start = self.fft - self.hop
        return out.reshape(*lead, total)[..., start : start + samples]
