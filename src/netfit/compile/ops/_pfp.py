"""Operators on Gaussians: mean and second moment go in and come out, both sums in one pass.

Source: "Accelerated Execution of Bayesian Neural Networks using a single Probabilistic Forward Pass and Code
Generation" (2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netfit.errors import ConfigError

from .._sizes import ConvSizes
from .._space import Config
from ._machine import Machine
from ._operator import Operator, Signature
from ._product import Product

__all__ = ["PfpConv2d", "PfpDense", "PfpMaxPool2d", "PfpReLU"]


@dataclass(frozen=True)
class PfpConv2d(Product):
    """A convolution of independent Gaussians with independent Gaussian weights, with the rectifier if asked.

    Operands and result are means and second moments, stacked: (2, n, c, h, w) and (2, k, c, r, s) to (2, n, k, oh, ow).
    For a deterministic input the second moment is the square. The variance is summed as input variance times second
    moment plus squared mean times weight variance, so nothing cancels.

    Args:
        sizes: of the convolution, without groups, alike along both axes.
        relu: the rectifier follows, by moment matching.

    Raises:
        ConfigError: groups, or different strides along the axes.
    """

    relu: bool = False

    @property
    def name(self) -> str:
        """Operator and sizes."""
        z, then = self.sizes, " relu" if self.relu else ""
        return (
            f"pfp conv2d{then} {z.n}x{z.c}x{z.h}x{z.w} k{z.k} {z.r}x{z.s} stride {z.stride[0]} padding {z.padding[0]}"
        )

    @property
    def _gauss(self) -> bool:
        return True

    @property
    def signature(self) -> Signature:
        """Moments of images, of weights, and of images."""
        z = self.sizes
        w, out = (2, z.k, z.c, z.r, z.s), (2, z.n, z.k, z.oh, z.ow)
        return Signature((2, z.n, z.c, z.h, z.w), "float32", w, out, "float32")

    def defines(self, config: Mapping[str, int], m: Machine) -> dict[str, int]:
        """Sizes, tile and the rectifier."""
        return super().defines(config, m) | {"RELU": int(self.relu)}

    def reference(self, *operands: Any) -> Any:
        """Moments in float64 torch, as float32."""
        import torch

        (xm, xs), (wm, ws) = (t.double() for t in operands)

        def conv(a: Any, b: Any) -> Any:
            return torch.nn.functional.conv2d(a, b, None, self.sizes.stride, self.sizes.padding)

        mean, variance = conv(xm, wm), conv(xs, ws) - conv(xm**2, wm**2)
        second = variance + mean**2
        return torch.stack(rectified(mean, second) if self.relu else (mean, second)).float()


@dataclass(frozen=True)
class PfpDense(PfpConv2d):
    """A linear layer on Gaussians: (2, batch, in) and (2, out, in) to (2, batch, out).

    Make one with `PfpDense.of`.
    """

    @classmethod
    def of(cls, batch: int, in_features: int, out_features: int, relu: bool = False) -> PfpDense:
        """From sizes of the layer."""
        return cls(ConvSizes.gemm(batch, out_features, in_features), relu)

    @property
    def name(self) -> str:
        """Operator and sizes."""
        return f"pfp dense{' relu' if self.relu else ''} {self.sizes.w}x{self.sizes.c}x{self.sizes.k}"

    @property
    def _last(self) -> bool:
        return True

    @property
    def signature(self) -> Signature:
        """Moments of (batch, in), (out, in), and (batch, out)."""
        z = self.sizes
        return Signature((2, z.w, z.c), "float32", (2, z.k, z.c), (2, z.w, z.k), "float32")

    def reference(self, *operands: Any) -> Any:
        """Moments in float64 torch, as float32."""
        x, w = operands
        return super().reference(x[..., None, None], w[..., None, None]).flatten(2)


@dataclass(frozen=True)
class _Pointwise(Operator):
    """Sizes of an operator without weights."""

    n: int
    c: int
    h: int
    w: int
    files = ("vectors.h", "op_gauss.h", "op_pfp_pointwise.c")

    def __post_init__(self) -> None:
        if min(self.n, self.c, self.h, self.w) < 1:
            raise ConfigError(f"{self}: sizes are whole numbers from 1")

    @property
    def macs(self) -> int:
        """Elements."""
        return self.n * self.c * self.h * self.w

    @property
    def signature(self) -> Signature:
        """Moments of images."""
        shape = (2, self.n, self.c, self.h, self.w)
        return Signature(shape, "float32", None, shape, "float32")

    def knobs(self, m: Machine) -> dict[str, tuple[int, ...]]:
        """One vector at a time; tuning a pool makes it slower, say those who tried."""
        return {"vectors": (1,)}

    def default(self, m: Machine) -> Config:
        """The only one."""
        return (1,)

    def traffic(self, config: Mapping[str, int], m: Machine) -> dict[str, float]:
        """Bytes of both moments."""
        return {"moments": 16.0 * self.macs}

    def defines(self, config: Mapping[str, int], m: Machine) -> dict[str, int]:
        """Sizes."""
        return {"BATCH": self.n, "CHANNELS": self.c, "HEIGHT": self.h, "WIDTH": self.w, "POOL": 0, "STRIDE": 1}


@dataclass(frozen=True)
class PfpReLU(_Pointwise):
    """The rectifier on Gaussians, by moment matching: (2, n, c, h, w) to the same."""

    @property
    def name(self) -> str:
        """Operator and sizes."""
        return f"pfp relu {self.n}x{self.c}x{self.h}x{self.w}"

    def reference(self, *operands: Any) -> Any:
        """Moments in float64 torch, as float32."""
        import torch

        mean, second = operands[0].double()
        return torch.stack(rectified(mean, second)).float()


@dataclass(frozen=True)
class PfpMaxPool2d(_Pointwise):
    """The maximum over ``kernel x kernel`` Gaussians, pair by pair: (2, n, c, h, w) to (2, n, c, oh, ow).

    Source: "The Greatest of a Finite Set of Random Variables" (Clark, 1961). Variances are at least 1e-4.

    Args:
        kernel: pixels of a side.
        stride: pixels between two results.
    """

    kernel: int = 2
    stride: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.kernel <= min(self.h, self.w) or self.stride < 1:
            raise ConfigError(f"{self}: a kernel of 2 or more pixels that fits the image, and a stride")

    @property
    def name(self) -> str:
        """Operator and sizes."""
        return f"pfp maxpool {self.n}x{self.c}x{self.h}x{self.w} {self.kernel}x{self.kernel} stride {self.stride}"

    @property
    def signature(self) -> Signature:
        """Moments of images, and of smaller ones."""
        oh, ow = (self.h - self.kernel) // self.stride + 1, (self.w - self.kernel) // self.stride + 1
        return super().signature._replace(out=(2, self.n, self.c, oh, ow))

    def defines(self, config: Mapping[str, int], m: Machine) -> dict[str, int]:
        """Sizes."""
        return super().defines(config, m) | {"POOL": self.kernel, "STRIDE": self.stride}

    def reference(self, *operands: Any) -> Any:
        """Moments in float64 torch, as float32."""
        import torch

        x = operands[0].double()
        windows = x.unfold(3, self.kernel, self.stride).unfold(4, self.kernel, self.stride).flatten(5)
        mean, second = windows[0, ..., 0], windows[1, ..., 0]
        for i in range(1, windows.shape[-1]):
            mean, second = greatest(mean, second, windows[0, ..., i], windows[1, ..., i])
        return torch.stack([mean, second]).float()


def _normal(z: Any) -> tuple[Any, Any]:
    import torch

    return 0.5 * torch.erfc(-z * math.sqrt(0.5)), torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def rectified(mean: Any, second: Any) -> tuple[Any, Any]:
    """Mean and second moment of max(x, 0) for a Gaussian x."""
    deviation = (second - mean**2).clamp(min=1e-12).sqrt()
    share, density = _normal(mean / deviation)
    return mean * share + deviation * density, second * share + mean * deviation * density


def greatest(mean: Any, second: Any, m: Any, s: Any) -> tuple[Any, Any]:
    """Mean and second moment of the larger of two independent Gaussians."""
    width = ((second - mean**2).clamp(min=1e-4) + (s - m**2).clamp(min=1e-4)).sqrt()
    share, density = _normal((mean - m) / width)
    first = mean * share + m * (1 - share) + width * density
    return first, second * share + s * (1 - share) + (mean + m) * width * density
