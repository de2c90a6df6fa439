"""Microphones that do not do their work, told by the statistics of their signals."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ._room import SPEED_OF_SOUND

__all__ = ["MicrophoneFault", "check_microphones"]

_DEAD = 1e-3  # of the median level of all microphones: 60 dB down
_CLIPPED = 1e-3  # share of samples at the rail
_LOW_HZ = (100.0, 700.0)  # where microphones of one array hear nearly the same
_BETTER = 0.6  # a swap explains the coherences if it leaves less than this of the misfit


@dataclass(frozen=True)
class MicrophoneFault:
    """One microphone that should not be trusted.

    Attributes:
        channel: counted from 0.
        kind: ``"dead"``, ``"clipped"``, ``"inverted"`` (its wires are swapped) or ``"swapped"`` (two positions are).
        detail: what was found, in words.
    """

    channel: int
    kind: str
    detail: str

    @property
    def unusable(self) -> bool:
        """Whether beamforming is better without it; masks and covariances do not mind the other faults."""
        return self.kind in ("dead", "clipped")

    def __str__(self) -> str:
        return f"microphone {self.channel} is {self.kind}: {self.detail}"


def check_microphones(x: Tensor, fs: int, positions: ArrayLike | None = None) -> list[MicrophoneFault]:
    """Find dead, clipped, inverted and swapped microphones.

    Args:
        x: recording (M, n).
        fs: samples a second.
        positions: of the microphones in m, (M, 3); swapped ones cannot be told without.

    Returns:
        Faults in the order of the channels; empty when all is well.

    >>> import torch
    >>> x = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)).repeat(3, 1) * 0.1
    >>> x[1] = 0
    >>> [str(fault) for fault in check_microphones(x, 16000)]
    ['microphone 1 is dead: 0 samples differ from silence']
    """
    signal = x.double().numpy()
    faults = [fault for c in range(len(signal)) for fault in _alone(c, signal)]
    bad = {fault.channel for fault in faults}
    good = [c for c in range(len(signal)) if c not in bad]
    if len(good) < 3:
        return faults
    C = _coherence(signal[good], fs)
    inverted = _inverted(C)
    faults += [
        MicrophoneFault(good[i], "inverted", "its low tones have the opposite sign of all others'") for i in inverted
    ]
    if positions is not None and not inverted:
        faults += _swapped(C, np.asarray(positions, float)[good], good, fs)
    return sorted(faults, key=lambda fault: fault.channel)


def _alone(c: int, signal: NDArray[np.float64]) -> list[MicrophoneFault]:
    """What one signal and the levels of the others tell."""
    levels = signal.std(1)
    x, usual = signal[c], float(np.median(levels))
    if levels[c] < _DEAD * usual or not levels[c]:
        moving = int(np.count_nonzero(x - x[0]))
        how = (
            f"{moving} samples differ from silence"
            if not moving
            else f"{20 * np.log10(levels[c] / usual):.0f} dB beside the others"
        )
        return [MicrophoneFault(c, "dead", how)]
    top = float(np.abs(x).max())
    railed = np.abs(x) > 0.999 * top
    share = float(np.mean(railed[1:] & railed[:-1]))  # two in a row: a loud peak stands alone
    if share > _CLIPPED:
        return [MicrophoneFault(c, "clipped", f"{100 * share:.1f} % of its samples stand at {top:.2f}")]
    return []


def _coherence(signal: NDArray[np.float64], fs: int) -> NDArray[np.complex128]:
    """Coherence of all pairs at low frequencies, (F, M, M)."""
    size = 1 << int(np.log2(fs * 0.064))
    n = signal.shape[1] // size
    pieces = signal[:, : n * size].reshape(len(signal), n, size) * np.hanning(size)
    Y = np.fft.rfft(pieces, axis=2)
    k = np.fft.rfftfreq(size, 1 / fs)
    Y = Y[:, :, (k >= _LOW_HZ[0]) & (k <= _LOW_HZ[1])]
    R = np.einsum("mtf,ntf->fmn", Y, Y.conj())
    power = np.sqrt(np.einsum("fmm->fm", R).real.clip(1e-30))
    return R / power[:, :, None] / power[:, None, :]


def _inverted(C: NDArray[np.complex128]) -> list[int]:
    """Channels whose coherence with most others is negative where wavelengths are long."""
    low = C[: max(1, len(C) // 4)].real.mean(0)
    np.fill_diagonal(low, 0)
    M = len(low)
    return [c for c in range(M) if (low[c] < -0.3).sum() > (M - 1) / 2]


def _swapped(
    C: NDArray[np.complex128], places: NDArray[np.float64], names: list[int], fs: int
) -> list[MicrophoneFault]:
    """The two channels whose exchange makes coherence fall with distance as in a diffuse field, if any."""
    k = np.linspace(*_LOW_HZ, len(C))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    expected = np.sinc(2 * k[:, None, None] * distance / SPEED_OF_SOUND)

    def misfit(order: list[int]) -> float:
        return float(((C.real[:, order][:, :, order] - expected) ** 2).mean())

    straight = list(range(len(names)))
    best, pair = misfit(straight) * _BETTER, None
    for a, b in combinations(straight, 2):
        order = straight.copy()
        order[a], order[b] = b, a
        if misfit(order) < best:
            best, pair = misfit(order), (names[a], names[b])
    if pair is None:
        return []
    text = "its coherences fit the place of microphone {}"
    return [MicrophoneFault(a, "swapped", text.format(b)) for a, b in (pair, pair[::-1])]
