"""Enhancement of a stream in constant memory: block after block, restartable, the same for any size of block."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netfit.errors import ConfigError, NetfitError
from netfit.kernels import mvdr
from netfit.streaming import Frames, OverlapAdd, State

from ._enhance import MASK_FLOOR, design
from ._estimator import MaskEstimator
from ._features import FeatureState
from ._model import load_model
from ._packed import PackedNetwork
from ._stft import STFT
from .files import MAX_MICS, Writer, blocks, properties

__all__ = ["StreamingEnhancer"]

_UPDATE_EVERY = {"mvdr": 1, "gev": 4}  # frames: an eigenvector of every frequency takes a good part of a frame's time


class StreamingEnhancer:
    """Several microphones in, one voice out, while they are heard.

    Every frame updates recursive covariances of speech and noise with the mask; every few frames the filter is made
    anew. Frames are computed one by one, so the output does not depend on how the stream is cut into blocks.

    Args:
        model: mask network; the one that comes with netfit by default.
        n_mics: microphones.
        fs: samples a second; must be the model's.
        tau_frames: time constant of the covariances, in frames.
        update_every: frames from one filter to the next; by default 1 for mvdr and 4 for gev.
        beamformer: ``"mvdr"``, ``"gev"``, or ``"none"`` for one microphone.
        postfilter: as for `enhance`.
        ref: microphone that the output is like.
        hop: samples between frames.
        network: what maps standardised features to logits; by default a `PackedNetwork` of the model where its policy
            and this machine allow one.

    Attributes:
        latency_samples: how long a sample may wait for the rest of its frame.

    Raises:
        ConfigError: a setting that cannot be used.

    Example:
        >>> model = MaskEstimator(n_fft=64, hidden=16).eval()
        >>> stream = StreamingEnhancer(model, n_mics=2, fs=16000, hop=16)
        >>> x = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
        >>> [len(stream.process(x[:, :70])), len(stream.process(x[:, 70:])), len(stream.flush())]
        [16, 32, 52]
    """

    def __init__(
        self, model: MaskEstimator | None = None, n_mics: int = 6, fs: int = 16000, *, tau_frames: int = 200,
        update_every: int | None = None, beamformer: str = "mvdr", postfilter: str = "auto", ref: int = 0,
        hop: int = 256, network: Any = None,
    ) -> None:  # fmt: skip
        model = model or load_model()
        if fs != model.fs:
            raise ConfigError(f"fs={fs}, but the mask network is for {model.fs} samples a second: resample the stream")
        if beamformer != "none" and n_mics < 2:
            raise ConfigError(f"beamformer={beamformer!r} needs >= 2 microphones, not {n_mics}; use beamformer='none'")
        if n_mics > MAX_MICS:
            raise ConfigError(f"{n_mics} microphones, more than {MAX_MICS}: channels interleaved by mistake?")
        if not 0 <= ref < n_mics:
            raise ConfigError(f"ref={ref} is none of the {n_mics} microphones 0 to {n_mics - 1}")
        update_every = _UPDATE_EVERY.get(beamformer, 1) if update_every is None else update_every
        if tau_frames < 1 or update_every < 1:
            raise ConfigError(f"tau_frames={tau_frames}, update_every={update_every}: both must be at least 1")
        self.model, self.n_mics, self.fs, self.ref = model.eval(), n_mics, fs, ref
        self.beamformer, self.postfilter, self.update_every = beamformer, postfilter, update_every
        self.stft = STFT(model.n_fft, hop)
        self.latency_samples = self.stft.fft
        self._network = network or _network_of(model)
        self._keep = float(np.exp(-1 / tau_frames))
        self._window = self.stft.window().numpy()
        self._restart()

    def _restart(self) -> None:
        fft, hop, bins = self.stft.fft, self.stft.hop, self.stft.bins
        self._frames = Frames(fft, hop, (self.n_mics,), np.float32)
        self._frames.push(np.zeros((fft - hop, self.n_mics), np.float32))
        self._add = OverlapAdd(fft, hop, (), np.float32)
        self._features = self.model.start(self.n_mics)
        self._R = mvdr.start(self.n_mics, bins)
        self._w = torch.zeros(self.n_mics, bins, dtype=torch.complex128)
        self._w[self.ref] = 1
        self._seen = self._taken = self._given = 0

    def process(self, block: Any) -> NDArray[np.float32]:
        """Take the next samples and hand out those of the voice that are done.

        Args:
            block: float32 (microphones, n), any n.

        Returns:
            (n',): sample i of the voice comes at the latest `latency_samples` after sample i went in.

        Raises:
            ConfigError: another number of microphones, or values that are not finite.
        """
        x = np.asarray(block, np.float32)
        if x.ndim != 2 or len(x) != self.n_mics:
            raise ConfigError(f"a block of shape {x.shape}: expected ({self.n_mics}, samples)")
        if not np.isfinite(x).all():
            raise ConfigError(f"values that are NaN or infinite in the block after sample {self._taken}")
        self._taken += x.shape[1]
        return self._out(self._frames.push(x.T))

    def flush(self) -> NDArray[np.float32]:
        """The rest of the voice, when nothing more will come; the stream starts anew."""
        wanted = self._taken - self._given
        missing = -self._taken % self.stft.hop + self.stft.fft - self.stft.hop
        rest = self._out(self._frames.push(np.zeros((missing, self.n_mics), np.float32)))[:wanted]
        self._restart()
        return rest

    def enhance_file(self, source: str | Path, target: str | Path, block: int) -> int:
        """Enhance a sound file of any length in constant memory.

        Args:
            source: wav, flac or ogg.
            target: ends in .wav or .flac.
            block: samples read at a time.

        Returns:
            Samples written.

        Raises:
            ConfigError: the file is empty, or has another number of channels or samples a second than the stream.
        """
        channels, samples, fs = properties(source)
        if not samples:
            raise ConfigError(f"{source} is empty: 0 samples of {channels} channels")
        if (channels, fs) != (self.n_mics, self.fs):
            found = f"{channels} channels and {fs} samples a second"
            raise ConfigError(f"{source} has {found}, the stream {self.n_mics} and {self.fs}")
        with Writer(target, fs) as writer:
            for part in blocks(source, block):
                writer.write(self.process(part))
            writer.write(self.flush())
        return samples

    @torch.no_grad()
    def _out(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [self._frame(frame) for frame in frames]
        done = self._add.push(np.reshape(parts, (len(parts), self.stft.fft)))
        lead = min(len(done), max(0, self.stft.fft - self.stft.hop - (self._seen - len(parts)) * self.stft.hop))
        done = done[lead:]  # what lies before the first sample
        self._given += len(done)
        return done

    def _frame(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        """One frame (fft, microphones) to one frame of the voice."""
        y = torch.from_numpy(np.fft.rfft(np.ascontiguousarray(frame.T) * self._window))  # (M, F)
        x, self._features = self.model.standardised(y.to(torch.complex64)[None, :, :, None], self._features)
        m = torch.sigmoid(self._network(x[0]))[0]
        self._seen += 1
        voice = y[0] if self.beamformer == "none" else self._beam(y.to(torch.complex128), m.double())
        if self.beamformer == "none" or self.postfilter == "mask":
            voice = voice * m.clamp(min=MASK_FLOOR)
        return (np.fft.irfft(voice.numpy(), self.stft.fft) * self._window).astype(np.float32)

    def _beam(self, y: Tensor, m: Tensor) -> Tensor:
        mvdr.follow(self._R, y, m, self._keep)
        if self._seen % self.update_every == 0 and self._seen > self.update_every:
            self._w = self._filters()  # the first frames alone would fit themselves, and not those that follow
        return (self._w.conj() * y).sum(0)

    def _filters(self) -> Tensor:
        if self.beamformer == "mvdr" and self.postfilter in ("auto", "none", "mask"):
            return mvdr.filters(self._R, self.ref)
        speech, noise = mvdr.matrices(self._R)
        return design(speech, noise, self.beamformer, self.postfilter, self.ref).T

    def state(self) -> State:
        """What a restart needs, for `netfit.streaming.save_state`."""
        features = {name: getattr(self._features, name).numpy().copy() for name in ("level", "R", "v")}
        counts = {"seen": self._seen, "taken": self._taken, "given": self._given, "level_frames": self._features.frames}
        return {
            "frames": self._frames.state(), "add": self._add.state(), "features": features, "counts": counts,
            "R": self._R.numpy().copy(), "w": self._w.numpy().copy().view(np.float64),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on where `state` was taken.

        Raises:
            ConfigError: it belongs to another number of microphones or another size of frame.
        """
        R, w = torch.from_numpy(state["R"].copy()), torch.from_numpy(state["w"].view(np.complex128))
        if R.shape != self._R.shape or w.shape != self._w.shape:
            raise ConfigError(
                f"a state of {tuple(R.shape)} covariances does not fit here: expected {tuple(self._R.shape)}"
            )
        self._frames.restore(state["frames"])
        self._add.restore(state["add"])
        f, counts = state["features"], state["counts"]
        level, cov, v = (torch.from_numpy(f[name]) for name in ("level", "R", "v"))
        self._features = FeatureState(level, counts["level_frames"], cov, v)
        self._R, self._w = R, w
        self._seen, self._taken, self._given = counts["seen"], counts["taken"], counts["given"]


def _network_of(model: MaskEstimator) -> Any:
    """The fastest way to run the network of a model, one frame at a time."""
    try:
        return PackedNetwork(model) if model.policy else model.net
    except NetfitError:  # a custom policy, or no compiler
        return model.net
