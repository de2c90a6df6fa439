"""The network that says which bins of a spectrum are speech."""

import copy
from collections import OrderedDict
from typing import Any, Self

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean
from netfit.surgery import Policy, Quantize, apply, calibrate

from ._features import FEATURES, FeatureState, extract, start, width

__all__ = ["BITS", "MaskEstimator", "policy_of"]

BITS = ("fp32", "int8", "w4a8", "w2a8", "w1a8", "w1a2", "w1a1")
_LAYERS = ("hidden1", "hidden2", "out")


def policy_of(bits: str) -> Policy:
    """Policy of a precision by name, for all three layers of the mask network.

    With 1 or 2 bits of activation the first layer still reads 8: its input is measured, not learned.

    Raises:
        ConfigError: no such precision.

    >>> policy_of("w1a2")["hidden1"] == policy_of("w1a8")["hidden1"]
    True
    """
    if bits not in BITS:
        raise ConfigError(f"unknown precision {bits!r} of a mask network; {did_you_mean(bits, BITS)}")
    if bits == "fp32":
        return Policy()
    chosen = Quantize.of(bits)
    first = chosen if chosen.act_bits == 8 else Quantize(1, 8)
    return Policy(dict(zip(_LAYERS, (first, chosen, chosen), strict=True)))


class MaskEstimator(nn.Module):
    """Share of speech in every bin of a multi-channel spectrum, for any number of microphones.

    "Resource-Efficient Speech Mask Estimation for Multi-Channel Speech Enhancement", Pfeifenberger et al., 2020: three
    dense layers on features of one frame (see `extract`), at few bits. Nothing later than a frame is ever looked at.

    Args:
        n_fft: samples of a frame.
        hidden: width of the two hidden layers.
        features: of "magnitude" and "eigen".
        fs: samples a second that the network is for.

    Attributes:
        net: the network alone, from standardised features (n, inputs) to logits (n, n_fft / 2 + 1).
        policy: what was done to it (see `quantized`).
        notes: what its file says of it.

    Raises:
        ConfigError: sizes or features that do not exist.

    Example:
        >>> Y = torch.randn(1, 4, 33, 10, dtype=torch.complex64)
        >>> MaskEstimator(n_fft=64, hidden=16).eval()(Y).shape
        torch.Size([1, 33, 10])
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, n_fft: int = 1024, hidden: int = 512, features: tuple[str, ...] = FEATURES, fs: int = 16000
    ) -> None:
        super().__init__()
        for name in features:
            if name not in FEATURES:
                raise ConfigError(f"unknown feature {name!r}: {did_you_mean(name, FEATURES)}")
        if n_fft < 4 or n_fft % 2 or hidden < 1 or not features:
            raise ConfigError(
                f"n_fft={n_fft}, hidden={hidden}, features={features}: give an even n_fft >= 4 and one of each"
            )
        self.n_fft, self.hidden, self.features, self.fs = n_fft, hidden, tuple(features), fs
        self.policy, self.notes = Policy(), dict[str, Any]()
        bins = n_fft // 2 + 1
        inputs = bins * width(self.features)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            hidden1=nn.Linear(inputs, hidden), norm1=nn.BatchNorm1d(hidden), relu1=nn.ReLU(),
            hidden2=nn.Linear(hidden, hidden), norm2=nn.BatchNorm1d(hidden), relu2=nn.ReLU(),
            out=nn.Linear(hidden, bins),
        )  # fmt: skip
        self.net: nn.Module = nn.Sequential(layers)

    @property
    def bins(self) -> int:
        """Frequencies of a mask."""
        return self.n_fft // 2 + 1

    def start(self, mics: int, batch: int = 1) -> FeatureState:
        """State of a stream before its first frame."""
        return start(batch, mics, self.bins)

    def standardised(self, Y: Tensor, state: FeatureState) -> tuple[Tensor, FeatureState]:
        """What the network sees of the frames after a state.

        Args:
            Y: complex64 (B, M, F, T).
            state: from `start` or an earlier call.

        Returns:
            (B, T, inputs), and the state after them.

        Raises:
            ConfigError: a spectrum of another number of frequencies.
        """
        if Y.ndim != 4 or Y.shape[2] != self.bins:
            raise ConfigError(
                f"a spectrum of shape {tuple(Y.shape)}: expected (batch, microphones, {self.bins}, frames)"
            )
        x, state = extract(Y, self.features, state)
        return (x - self.mean) * self.scale, state

    def forward(self, Y: Tensor) -> Tensor:
        """Mask of a whole recording.

        Args:
            Y: complex64 (B, M, F, T).

        Returns:
            (B, F, T) from 0 (noise) to 1 (speech).
        """
        x, _ = self.standardised(Y, self.start(Y.shape[1], len(Y)))
        return torch.sigmoid(self.net(x.flatten(0, 1))).unflatten(0, x.shape[:2]).transpose(1, 2)

    def quantized(self, bits: str | Policy, samples: Tensor) -> Self:
        """A copy whose network runs at a precision; train it on to win back what that costs.

        Args:
            bits: of `BITS`, or a policy for the layers hidden1, hidden2 and out.
            samples: standardised features (n, inputs) that set the ranges of activations.
        """
        policy = policy_of(bits) if isinstance(bits, str) else bits
        new = copy.deepcopy(self)
        new.policy = policy
        if policy:
            new.net = apply(self.net, policy, samples[:2])
            calibrate(new.net, list(samples.split(256)))
        return new
