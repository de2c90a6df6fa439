"""Quantization with a step that is given, not learned: large steps force large activations, hence robustness."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.quant import Affine, fake_quantize
from netfit.surgery import CallHook, Site, Stage, Technique, install

__all__ = ["ConstantScale"]

LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})


class _Weight(CallHook):
    def __init__(self, format: Affine) -> None:
        super().__init__()
        self.format = format

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if "weight" in kwargs:
            return args, {**kwargs, "weight": self.format(kwargs["weight"])}
        return (args[0], self.format(args[1]), *args[2:]), kwargs


class _Activation(CallHook):
    def __init__(self, scale: float, bits: int) -> None:
        super().__init__()
        self.scale, self.largest = scale, 2**bits - 1

    def after(self, result: Tensor) -> Tensor:
        scale = torch.tensor(self.scale, device=result.device)
        zero_point = torch.zeros((), dtype=torch.int32, device=result.device)
        return fake_quantize(result, scale, zero_point, 0, self.largest)


@dataclass(frozen=True)
class ConstantScale(Technique):
    """Quantize ReLU outputs with a constant step and weights with the step of their own range.

    The network learns activations that fill 0 to ``scale * (2^bits - 1)``; additive noise of a given strength is then
    small beside them, at some price in clean accuracy. "On Hardening DNNs against Noisy Computations", 2025.

    Args:
        scale: step of the ReLU outputs.
        bits: 2 to 16, of weights (per output channel of a convolution, per tensor of a linear layer) and activations.

    Raises:
        ConfigError: the scale is not positive, or the bits are out of range.

    Example:
        >>> from netfit.surgery import Policy, apply
        >>> policy = Policy({"kind:relu": ConstantScale(scale=0.5, bits=2)})
        >>> apply(nn.Sequential(nn.ReLU()), policy, torch.zeros(1, 2))(torch.tensor([[0.8, 9.0]]))
        tensor([[1.0000, 1.5000]])
    """

    scale: float
    bits: int = 8

    name: ClassVar[str] = "constant_scale"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    mechanism: ClassVar[Literal["swap", "parametrization", "hook", "graph"]] = "hook"
    kinds: ClassVar[frozenset[str] | None] = LAYERS | {"relu"}

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"{self.name}: scale must be a positive number, not {self.scale}")
        if not 2 <= self.bits <= 16:
            raise ConfigError(f"{self.name}: bits must be between 2 and 16, not {self.bits}")

    @classmethod
    def rewrite(
        cls, model: nn.Module, chosen: Mapping[Site, "ConstantScale"], example_inputs: tuple[Tensor, ...]
    ) -> nn.Module:
        """Install the rounding of weights at layers and of outputs at ReLUs."""
        hooks: dict[tuple[str, int | None], CallHook] = {}
        for site, t in chosen.items():
            if site.kind in LAYERS:  # a layer called several times has one weight
                hooks[site.name, None] = _Weight(Affine(t.bits, axis=None if site.kind == "linear" else 0))
            else:
                hooks[site.key] = _Activation(t.scale, t.bits)
        install(model, hooks)
        return model
