"""A recording in, one clean voice out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from netfit.errors import ConfigError, did_you_mean

from . import functional
from ._estimator import MaskEstimator
from ._health import MicrophoneFault, check_microphones
from ._model import load_model
from ._show import page_facts
from ._stft import STFT
from .files import as_signal, read, resample

__all__ = ["BEAMFORMERS", "POSTFILTERS", "Enhanced", "best_microphone", "blind_mask", "design", "enhance"]

BEAMFORMERS = ("mvdr", "gev", "none")
POSTFILTERS = ("auto", "pan", "ban", "mask", "none")
MASK_FLOOR = 0.1  # of a mask used as a gain: deeper cuts sound like water


@dataclass(frozen=True, eq=False)
class Enhanced:
    """What `enhance` made.

    Attributes:
        audio: (n,), float32.
        fs: samples a second.
        mask: share of speech in every bin, (F, T).
        weights: filter of every frequency, complex (F, M); None without a beamformer.
        channels: microphones that were used.
        reference: microphone that the output is like.
        faults: microphones that do not do their work.
        report: how it was made, as JSON values.
    """

    audio: Tensor
    fs: int
    mask: Tensor
    weights: Tensor | None
    channels: tuple[int, ...]
    reference: int
    faults: tuple[MicrophoneFault, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)

    def page(self, noisy: Tensor) -> dict[str, Any]:
        """Sounds, spectrograms and mask as JSON values, for a report.

        Args:
            noisy: one microphone of the recording, (n,), at the rate of `fs`.
        """
        return page_facts(noisy, self.audio, self.mask, self.fs)


@torch.no_grad()
def enhance(
    x: Any,
    fs: int | None = None,
    *,
    beamformer: str = "mvdr",
    postfilter: str = "auto",
    mask: str | Tensor = "model",
    model: MaskEstimator | None = None,
    ref: int | str = "auto",
    fft: int = 1024,
    hop: int = 256,
    positions: Any = None,
) -> Enhanced:
    """Separate one voice from everything else.

    Args:
        x: sound file, or samples (microphones, n).
        fs: samples a second of an array; a file tells its own.
        beamformer: ``"mvdr"``, ``"gev"``, or ``"none"`` for one microphone: the mask is the gain.
        postfilter: ``"auto"`` (pan behind gev, nothing behind mvdr), ``"pan"``, ``"ban"``, ``"mask"`` (the mask as a
            gain behind the beamformer), or ``"none"``.
        mask: ``"model"``, ``"blind"`` (a rule without a network), or the mask itself, (F, T).
        model: mask network; the one that comes with netfit by default.
        ref: microphone that the output shall be like, counted from 0; ``"auto"`` takes the best one.
        fft: samples of a frame; must be the model's.
        hop: samples between frames.
        positions: of the microphones in m, (M, 3): also looks for swapped ones.

    Raises:
        ConfigError: anything in this list that cannot be used, or a recording that is empty, silent, not finite, or
            of too many channels.

    Example:
        >>> x = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
        >>> enhance(x, 16000, mask="blind").audio.shape
        torch.Size([8000])
    """
    _check_choice("beamformer", beamformer, BEAMFORMERS)
    _check_choice("postfilter", postfilter, POSTFILTERS)
    stft = STFT(fft, hop)
    signal, fs, notes = _recording(x, fs)
    if isinstance(mask, str):
        _check_choice("mask", mask, ("model", "blind"))
    if mask == "model":
        model = _model(model, fft)
        if fs != model.fs:
            notes.append(f"resampled from {fs} to {model.fs} samples a second, which the mask network is for")
            signal, fs = resample(signal, fs, model.fs), model.fs
    if beamformer != "none" and len(signal) < 2:
        raise ConfigError(f"beamformer={beamformer!r} needs >= 2 microphones, not 1; use beamformer='none'")
    if isinstance(ref, int) and not 0 <= ref < len(signal):
        raise ConfigError(f"ref={ref} is none of the {len(signal)} microphones 0 to {len(signal) - 1}")
    faults = check_microphones(signal, fs, positions)
    channels = _usable(len(signal), faults, ref, beamformer)
    Y = stft(signal[list(channels)])
    m = _mask(mask, Y, model)
    audio, w, reference = _filtered(Y, m, channels, beamformer, postfilter, ref)
    report = {"beamformer": beamformer, "postfilter": postfilter, "channels": list(channels), "notes": notes}
    return Enhanced(
        stft.inverse(audio.to(torch.complex64), signal.shape[1]), fs, m, w, channels, reference, tuple(faults),
        report | {"reference": reference, "faults": [str(f) for f in faults]},
    )  # fmt: skip


def covariances(Y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Covariances of speech and noise from an estimated mask, (F, M, M) each.

    An estimate is never sure, so a loud voice leaks into the noise and is cancelled with it. Bins are weighted by the
    square of the mask, and by the inverse of their magnitude: what few loud frames say counts less.
    """
    flat = compressed(Y)
    return functional.scm(flat, mask.square()), functional.scm(flat, (1 - mask).square())


def compressed(Y: Tensor) -> Tensor:
    """A spectrum whose magnitude is the square root of what it was; phases and differences of level stay."""
    size = Y.abs().square().mean(-3, keepdim=True).sqrt()
    return Y / size.sqrt().clamp(min=1e-15)


def design(Rs: Tensor, Rn: Tensor, beamformer: str, postfilter: str, ref: int) -> Tensor:
    """Filter of a beamformer and its normalization, (F, M); `Rn` is loaded first."""
    Rn = functional.load(Rn)
    w = functional.mvdr(Rs, Rn, ref) if beamformer == "mvdr" else functional.gev(Rs, Rn)
    if postfilter == "pan" or (postfilter == "auto" and beamformer == "gev"):
        w = functional.pan(w, Rn, ref)
    elif postfilter == "ban":
        w = functional.ban(w, Rn)
    return w


def best_microphone(Rs: Tensor, Rn: Tensor) -> int:
    """Microphone of the best ratio of speech to noise, summed over logarithms of frequencies."""
    speech, noise = (R.diagonal(dim1=-2, dim2=-1).real for R in (Rs, functional.load(Rn)))
    return int((speech.sum(-2) / noise.sum(-2)).argmax())


def blind_mask(Y: Tensor) -> Tensor:
    """Share of speech from a rule: what stands out of the quietest tenth of a frequency's frames, (F, T)."""
    power = Y.abs().square().mean(-3)
    floor = 3 * power.quantile(0.1, dim=-1, keepdim=True)
    above = (power / floor.clamp(min=1e-30) - 1).clamp(min=0)
    return above / (1 + above)


def _recording(x: Any, fs: int | None) -> tuple[Tensor, int, list[str]]:
    if isinstance(x, str | Path):
        signal, fs = read(x)
        return as_signal(signal, str(x)), fs, []
    if fs is None or fs < 1:
        raise ConfigError(f"fs={fs}: say how many samples a second the array holds")
    return as_signal(x), int(fs), []


def _model(model: MaskEstimator | None, fft: int) -> MaskEstimator:
    model = model or load_model()
    if model.n_fft != fft:
        raise ConfigError(f"fft={fft}, but the mask network is for frames of {model.n_fft} samples")
    return model


def _usable(mics: int, faults: Sequence[MicrophoneFault], ref: int | str, beamformer: str) -> tuple[int, ...]:
    """Microphones to work with: the clipped ones only where there is nothing better."""
    dead = {fault.channel for fault in faults if fault.kind == "dead"}
    bad = {fault.channel for fault in faults if fault.unusable}
    least = 1 if beamformer == "none" else 2
    left = next((c for c in (_without(mics, bad), _without(mics, dead)) if len(c) >= least), ())
    if not left:
        found = f"{mics - len(dead)} of {mics} microphones can be used ({'; '.join(map(str, faults))})"
        raise ConfigError(f"{found}; use beamformer='none'")
    if isinstance(ref, int) and ref not in left:
        raise ConfigError(f"ref={ref}: {next(f for f in faults if f.channel == ref)}")
    return left


def _without(mics: int, channels: set[int]) -> tuple[int, ...]:
    return tuple(c for c in range(mics) if c not in channels)


def _mask(mask: str | Tensor, Y: Tensor, model: MaskEstimator | None) -> Tensor:
    if isinstance(mask, Tensor):
        if mask.shape != Y.shape[-2:] or not (mask.min() >= 0 and mask.max() <= 1):
            raise ConfigError(f"mask of shape {tuple(mask.shape)}: give {tuple(Y.shape[-2:])} from 0 to 1")
        return mask
    if mask == "blind":
        return blind_mask(Y)
    assert model is not None
    return model(Y[None])[0]


def _filtered(
    Y: Tensor, mask: Tensor, channels: tuple[int, ...], beamformer: str, postfilter: str, ref: int | str
) -> tuple[Tensor, Tensor | None, int]:
    """Spectrum of the voice, the filter, and the reference."""
    gain = mask.clamp(min=MASK_FLOOR)
    if beamformer == "none":
        index = channels.index(ref) if isinstance(ref, int) else 0
        return Y[index] * gain, None, channels[index]
    Z, m = Y.to(torch.complex128), mask.double()
    Rs, Rn = covariances(Z, m)
    index = channels.index(ref) if isinstance(ref, int) else best_microphone(Rs, Rn)
    w = design(Rs, Rn, beamformer, postfilter, index)
    voice = functional.apply(w, Z)
    return (voice * gain if postfilter == "mask" else voice), w, channels[index]


def _check_choice(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{what}={value!r} is unknown; {did_you_mean(str(value), known)}")
