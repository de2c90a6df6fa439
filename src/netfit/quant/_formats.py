"""Formats without an affine grid: powers of two, logarithmic, binary, ternary, unsigned fixed point.

Each is a frozen dataclass; calling it quantizes a tensor and lets the gradient straight through.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.quant._axis import along, other_dims


class Format(Protocol):
    """Anything that maps a tensor to representable values of the same shape, differentiably."""

    def __call__(self, x: Tensor) -> Tensor:
        """Quantize `x`."""


class _StraightThrough(torch.autograd.Function):
    """The value of `y`, with `slope` (a mask, or None for 1) for its derivative by `x`.

    `x + (y - x).detach()`, the usual one-liner, rounds twice and returns numbers that are not on the grid.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, slope: Tensor | None) -> Tensor:
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0] if slope is None else (grads[0] * slope).to(grads[0].dtype), None, None


def _straight_through(x: Tensor, y: Tensor, slope: Tensor | None = None) -> Tensor:
    out: Tensor = _StraightThrough.apply(x, y.to(x.dtype), slope)
    return out


def _check_bits(bits: int, least: int, name: str) -> None:
    if not least <= bits <= 8:
        raise ConfigError(f"bits={bits} of {name}: choose {least} to 8")


@dataclass(frozen=True)
class PowerOfTwo:
    """Zero and signed powers of two: a multiplication becomes a shift.

    One code is zero, one bit the sign, the other codes the exponents downwards from the one nearest to
    max |x|. Values go to the nearest representable one. "Incremental Network Quantization: Towards Lossless
    CNNs with Low-Precision Weights" (Zhou et al., 2017).

    Args:
        bits: width of a code with its sign, 2 to 8.
        axis: channel axis with a top exponent per slice; None for one per tensor.

    Example:
        >>> PowerOfTwo(bits=3)(torch.tensor([0.9, -0.4, 0.3, 0.05]))
        tensor([ 1.0000, -0.5000,  0.2500,  0.0000])
    """

    bits: int = 4
    axis: int | None = None

    def __post_init__(self) -> None:
        _check_bits(self.bits, 2, "PowerOfTwo")

    def __call__(self, x: Tensor) -> Tensor:
        """Quantize `x`; no value is clipped, so the gradient passes everywhere."""
        if x.numel() == 0:
            return x
        a = x.detach().float().abs()
        top = along(_nearest_exponent(a.amax(other_dims(x, self.axis))), x, self.axis)
        low = top - (2 ** (self.bits - 1) - 2)
        magnitude = _exp2(torch.minimum(torch.maximum(_nearest_exponent(a), low), top))
        magnitude = torch.where(a > _exp2(low) / 2, magnitude, 0.0)
        return _straight_through(x, torch.copysign(magnitude, x.detach().float()))


def _nearest_exponent(a: Tensor) -> Tensor:
    """k such that 2^k is the power of two nearest to `a`: 0.75 * 2^k <= a < 1.5 * 2^k."""
    return torch.frexp(a * (4 / 3)).exponent - 1


def _exp2(k: Tensor) -> Tensor:
    """2^k exactly, by writing the exponent field; `torch.exp2` may be one unit in the last place off."""
    return ((k.clamp(-126, 127) + 127) << 23).view(torch.float32)


@dataclass(frozen=True)
class Logarithmic:
    """Positive numbers on a geometric grid: x' = 2^(top - k * octaves / (2^bits - 1)), k an unsigned code.

    Made for the standard deviations of Bayesian layers, which sit close to the prior's and so want the grid
    anchored at its top. The gradient passes straight through in log2(x).

    Args:
        bits: width of a code, 1 to 8.
        top: log2 of the largest value.
        octaves: ratio of the largest to the smallest value, in octaves.

    Raises:
        ConfigError: `bits` or `octaves` is out of range.

    Example:
        >>> Logarithmic(bits=2, top=0.0, octaves=3.0)(torch.tensor([3.0, 0.4, 0.01]))
        tensor([1.0000, 0.5000, 0.1250])
    """

    bits: int = 4
    top: float = 0.5
    octaves: float = 8.0

    def __post_init__(self) -> None:
        _check_bits(self.bits, 1, "Logarithmic")
        if not (self.octaves > 0 and math.isfinite(self.octaves)):
            raise ConfigError(f"octaves={self.octaves} of Logarithmic: choose a positive number")

    def __call__(self, x: Tensor) -> Tensor:
        """Quantize `x`; what is not positive becomes the smallest value and gets no gradient."""
        values = x.detach().float()
        code = self._raw_codes(values)
        clipped = code.clamp(0, 2**self.bits - 1)
        y = self.grid().to(x.device)[clipped.long()]
        return _straight_through(x, y, torch.where((code == clipped) & (values > 0), y / values, 0.0))

    def codes(self, x: Tensor) -> Tensor:
        """Codes of the values that `x` is rounded to, uint8; `grid` turns them into values."""
        return self._raw_codes(x.detach().float()).clamp(0, 2**self.bits - 1).to(torch.uint8)

    def grid(self) -> Tensor:
        """Every value, by its code."""
        # A table, because torch.exp2 gives different last bits in its vector and its scalar loop.
        step = self.octaves / (2**self.bits - 1)
        return torch.tensor([2 ** (self.top - k * step) for k in range(2**self.bits)])

    def _raw_codes(self, values: Tensor) -> Tensor:
        log = torch.log2(values.clamp_min(torch.finfo(torch.float32).tiny))
        return ((self.top - log) / (self.octaves / (2**self.bits - 1))).round()


@dataclass(frozen=True)
class Binary:
    """-a or +a with a = mean |x|; the gradient passes where |x| <= 1.

    "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks" (Rastegari et al., 2016).
    Zero becomes +a.

    Args:
        axis: channel axis with one `a` per slice; None for one per tensor.

    Example:
        >>> Binary()(torch.tensor([-3.0, 0.5, 1.0, 1.5]))
        tensor([-1.5000,  1.5000,  1.5000,  1.5000])
    """

    axis: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Quantize `x`."""
        if x.numel() == 0:
            return x
        w = x.detach().float()
        a = along(w.abs().mean(other_dims(x, self.axis)), x, self.axis)
        return _straight_through(x, torch.where(w >= 0, a, -a), w.abs() <= 1)


@dataclass(frozen=True)
class Ternary:
    """-a, 0 or +a: zero below 0.7 mean |x|, a = mean |x| of the rest; the gradient passes where |x| <= 1.

    "Ternary Weight Networks" (Li et al., 2016).

    Args:
        axis: channel axis with one `a` per slice; None for one per tensor.

    Example:
        >>> Ternary()(torch.tensor([-1.0, 0.1, 0.2, 2.0]))
        tensor([-1.5000,  0.0000,  0.0000,  1.5000])
    """

    axis: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Quantize `x`."""
        if x.numel() == 0:
            return x
        w = x.detach().float()
        dims = other_dims(x, self.axis)
        kept = w.abs() > along(0.7 * w.abs().mean(dims), x, self.axis)
        total, count = (w.abs() * kept).sum(dims), kept.sum(dims).clamp_min(1)
        y = along(total / count, x, self.axis) * w.sign() * kept
        return _straight_through(x, y, w.abs() <= 1)


@dataclass(frozen=True)
class FixedPoint:
    """Unsigned fixed point: multiples of 2^-frac_bits from 0 to 2^int_bits - 2^-frac_bits.

    The gradient is the identity, also where the value is clipped, as in the quantized tree-augmented
    Bayesian classifiers whose negative log-probabilities this format stores.

    Args:
        int_bits: bits before the binary point.
        frac_bits: bits after it; negative for a grid coarser than 1.

    Raises:
        ConfigError: the two do not leave 1 to 16 bits in all.

    Example:
        >>> FixedPoint(int_bits=2, frac_bits=1)(torch.tensor([-1.0, 0.8, 1.3, 9.0]))
        tensor([0.0000, 1.0000, 1.5000, 3.5000])
    """

    int_bits: int
    frac_bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.int_bits + self.frac_bits <= 16:
            total = self.int_bits + self.frac_bits
            raise ConfigError(
                f"int_bits={self.int_bits} and frac_bits={self.frac_bits} make {total} bits: choose 1 to 16"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Quantize `x`."""
        step = 2.0**-self.frac_bits
        y = (x.detach().float() / step).round() * step
        return _straight_through(x, y.clamp(0.0, 2.0**self.int_bits - step))
