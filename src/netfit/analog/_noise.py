"""Gaussian noise at call sites: three techniques, one hook.

All three are ``y = x (m + s_mul n1) + s_add n2``. A hook keeps the amplitude ``s_add + s_mul`` and its additive share:
a walk or a schedule moves one number whatever the noise. Neither is a parameter or a buffer: a checkpoint never holds a
standard deviation, and loading one never changes it.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.surgery import CallHook, Site, Stage, Technique, install

from ._draw import Source, gaussian

__all__ = ["KINDS", "AdditiveGaussian", "Gaussian", "MixedGaussian", "MultiplicativeGaussian", "NoiseHook"]

When = Literal["always", "train", "eval"]
Relative = Literal["rms", "absmax"] | None

# Everything that computes new values; a view or a copy of a noisy tensor gets no second noise.
KINDS = frozenset(
    (
        "input", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
        "bilinear", "matmul", "addmm", "baddbmm", "einsum", "attention", "embedding", "lstm", "gru", "rnn_tanh",
        "rnn_relu", "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "relu", "relu6",
        "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid", "hardsigmoid",
        "logsigmoid", "tanh", "hardswish", "softmax", "log_softmax", "max_pool1d", "max_pool2d", "max_pool3d",
        "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
        "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "mean", "sum",
        "add", "sub", "mul", "div", "cat", "clip", "exp", "sqrt", "pow",
    )
)  # fmt: skip


class NoiseHook(CallHook):
    """The noise at one site.

    Args:
        site: (name, call) of the place.
        std: amplitude, a number, or one number a sample in a tensor (batch,).
        share: additive part of the amplitude.
        mean: of the factor.
        additive_first: add, then multiply.
        relative_to: statistic of the tensor that the standard deviation is a multiple of.
        when: mode of the model in which there is noise.
        repeats: independent executions that are averaged.
    """

    def __init__(
        self, site: tuple[str, int], std: float, share: float, mean: float = 1.0, additive_first: bool = False,
        relative_to: Relative = None, when: When = "always", repeats: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.site, self.share, self.mean, self.additive_first = site, share, mean, additive_first
        self.relative_to, self.when, self.repeats = relative_to, when, repeats
        self.std: float | Tensor = std
        self.scheduled: float | Tensor | None = None  # in training, in place of std
        self.source: Source = "exact"
        self.generator: torch.Generator | None = None

    def extra_repr(self) -> str:
        """Everything but the strength, for print(model)."""
        fields = ("site", "share", "mean", "additive_first", "relative_to", "when", "repeats")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in fields)

    def after(self, result: Any) -> Any:
        """The operation's result with noise, when there is any at this moment."""
        if self.when != "always" and self.training != (self.when == "train"):
            return result
        std = self.scheduled if self.training and self.scheduled is not None else self.std
        if not isinstance(std, Tensor) and std == 0:
            return result
        if isinstance(result, tuple):  # a recurrent layer: its output comes first
            return (self._noisy(result[0], std), *result[1:])
        return self._noisy(result, std)

    def _noisy(self, x: Any, std: float | Tensor) -> Tensor:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise _not_real(self.site[0], x)
        std = self._scaled(x, std)
        multiply, add = std * (1 - self.share), std * self.share
        if self.additive_first and self.share > 0:
            x = self._added(x, add)
        if self.share < 1:
            x = self._multiplied(x, multiply)
        return x if self.additive_first or self.share == 0 else self._added(x, add)

    def _scaled(self, x: Tensor, std: float | Tensor) -> float | Tensor:
        """The amplitude of this call, with one axis per axis of `x` when samples differ."""
        if isinstance(std, Tensor) and std.dim():
            if std.shape != x.shape[:1]:
                raise ConfigError(
                    f"noise at {self.site[0]!r}: {len(std)} standard deviations for a batch of {x.shape[0]} samples"
                )
            std = std.to(x).view(-1, *[1] * (x.dim() - 1))
        if self.repeats > 1:
            std = std / math.sqrt(self.repeats)  # what averaging independent executions leaves
        if self.relative_to == "rms":
            std = std * x.detach().square().mean().sqrt()
        elif self.relative_to == "absmax":
            std = std * x.detach().abs().amax()
        return std

    def _added(self, x: Tensor, std: float | Tensor) -> Tensor:
        n = gaussian(x, self.source, self.generator)
        return torch.addcmul(x, n, std) if isinstance(std, Tensor) else torch.add(x, n, alpha=std)

    def _multiplied(self, x: Tensor, std: float | Tensor) -> Tensor:
        n = gaussian(x, self.source, self.generator)
        base = x if self.mean == 1 else x * self.mean
        return torch.addcmul(base, x * std, n) if isinstance(std, Tensor) else torch.addcmul(base, x, n, value=std)


def _not_real(site: str, x: Any) -> ConfigError:
    found = x.dtype if isinstance(x, Tensor) else type(x).__name__
    return ConfigError(f"noise at {site!r} needs a real floating-point tensor, not {found}: name other sites")


class Gaussian(Technique):
    """What the three techniques have in common."""

    stage: ClassVar[Stage] = Stage.NOISE
    mechanism: ClassVar[Literal["swap", "parametrization", "hook", "graph"]] = "hook"
    kinds: ClassVar[frozenset[str] | None] = KINDS

    @abstractmethod
    def hook(self, site: tuple[str, int]) -> NoiseHook:
        """The noise at one site."""

    @classmethod
    def rewrite(cls, model: nn.Module, chosen: Mapping[Site, Self], example_inputs: tuple[Tensor, ...]) -> nn.Module:
        """Install one hook a site."""
        for site in chosen:
            if site.kind == "input" and not example_inputs[site.call].is_floating_point():
                raise _not_real(site.name, example_inputs[site.call])
        install(model, {site.key: noise.hook(site.key) for site, noise in chosen.items()})
        return model


def _check(name: str, when: str, repeats: int, relative_to: str | None = None, **numbers: float) -> None:
    for field, value in numbers.items():
        if not (math.isfinite(value) and (value >= 0 or field == "mean")):
            raise ConfigError(f"{name}: {field} must be a finite number of at least 0, not {value}")
    for field, word, known in (("when", when, get_args(When)), ("relative_to", relative_to, ("rms", "absmax", None))):
        if word not in known:
            raise ConfigError(f"{name}: {field} must be {' or '.join(map(repr, known))}, not {word!r}")
    if repeats < 1:
        raise ConfigError(f"{name}: repeats must be at least 1, not {repeats}")


@dataclass(frozen=True)
class AdditiveGaussian(Gaussian):
    """``y = x + N(0, std^2)`` at a site, drawn anew for every element and every forward pass.

    "Walking Noise: On Layer-Specific Robustness of Neural Architectures against Noisy Computations", 2022.

    Args:
        std: standard deviation, in units of the tensor.
        relative_to: make it a multiple of the tensor's root mean square (``"rms"``) or largest magnitude
            (``"absmax"``) in each batch.
        when: ``"always"``, or in one mode of the model only: ``"train"`` or ``"eval"``.
        repeats: executions whose mean is taken; leaves std / sqrt(repeats).

    Raises:
        ConfigError: a value is negative, not finite or unknown.

    Example:
        >>> from netfit.surgery import Policy, apply
        >>> model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(2, 4)
        >>> noisy = apply(model, Policy({"kind:linear": AdditiveGaussian(std=0.5)}), x)
        >>> list(noisy.state_dict()) == list(model.state_dict()), torch.equal(noisy(x), noisy(x))
        (True, False)
    """

    std: float
    relative_to: Relative = None
    when: When = "always"
    repeats: int = 1

    name: ClassVar[str] = "additive_gaussian"

    def __post_init__(self) -> None:
        _check(self.name, self.when, self.repeats, self.relative_to, std=self.std)

    def hook(self, site: tuple[str, int]) -> NoiseHook:
        """The noise at one site."""
        return NoiseHook(site, self.std, 1.0, relative_to=self.relative_to, when=self.when, repeats=self.repeats)


@dataclass(frozen=True)
class MultiplicativeGaussian(Gaussian):
    """``y = x * N(mean, std^2)`` at a site. Gradients pass times the drawn factor.

    Args:
        std: standard deviation of the factor.
        mean: of the factor.
        when: as in `AdditiveGaussian`.
        repeats: as in `AdditiveGaussian`.

    Raises:
        ConfigError: a value is negative, not finite or unknown.
    """

    std: float
    mean: float = 1.0
    when: When = "always"
    repeats: int = 1

    name: ClassVar[str] = "multiplicative_gaussian"

    def __post_init__(self) -> None:
        _check(self.name, self.when, self.repeats, std=self.std, mean=self.mean)

    def hook(self, site: tuple[str, int]) -> NoiseHook:
        """The noise at one site."""
        return NoiseHook(site, self.std, 0.0, mean=self.mean, when=self.when, repeats=self.repeats)


@dataclass(frozen=True)
class MixedGaussian(Gaussian):
    """``y = x * N(1, mul_std^2) + N(0, add_std^2)`` at a site, or the other order.

    Args:
        add_std: standard deviation of the added noise.
        mul_std: standard deviation of the factor.
        order: ``"mul_add"`` or ``"add_mul"``.
        when: as in `AdditiveGaussian`.
        repeats: as in `AdditiveGaussian`.

    Raises:
        ConfigError: a value is negative, not finite or unknown.

    Example:
        >>> MixedGaussian.from_amplitude(2.0, ratio=0.25)
        MixedGaussian(add_std=0.5, mul_std=1.5, order='mul_add', when='always', repeats=1)
    """

    add_std: float
    mul_std: float
    order: Literal["mul_add", "add_mul"] = "mul_add"
    when: When = "always"
    repeats: int = 1

    name: ClassVar[str] = "mixed_gaussian"

    def __post_init__(self) -> None:
        _check(self.name, self.when, self.repeats, add_std=self.add_std, mul_std=self.mul_std)
        if self.order not in ("mul_add", "add_mul"):
            raise ConfigError(f"{self.name}: order must be 'mul_add' or 'add_mul', not {self.order!r}")

    @classmethod
    def from_amplitude(cls, amplitude: float, ratio: float) -> Self:
        """Additive part ``amplitude * ratio``, multiplicative part the rest.

        Raises:
            ConfigError: the ratio is not between 0 and 1.
        """
        if not 0 <= ratio <= 1:
            raise ConfigError(f"{cls.name}: ratio must be between 0 and 1, not {ratio}")
        return cls(amplitude * ratio, amplitude * (1 - ratio))

    def hook(self, site: tuple[str, int]) -> NoiseHook:
        """The noise at one site."""
        amplitude = self.add_std + self.mul_std
        share = self.add_std / amplitude if amplitude else 0.5
        first = self.order == "add_mul"
        return NoiseHook(site, amplitude, share, additive_first=first, when=self.when, repeats=self.repeats)
