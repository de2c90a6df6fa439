"""`MonarchConv2d`: a grouped convolution and a grouped 1x1 one, with the channels shuffled between them."""

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.errors import ConfigError, UnsupportedLayerError

from ._auto import FasterDense, state_of
from ._chain import KSChain
from ._multiply import eager, ks_multiply
from ._project import project

__all__ = ["MonarchConv2d", "channel_blocks"]


class MonarchConv2d(nn.Module):
    """A convolution whose channels are mixed by a Monarch matrix; the first of its factors holds the kernels.

    A kernel of 1x1 runs as a chain of two factors on the channels; a larger one as a grouped convolution, which reads
    no image twice, and one factor.

    Args:
        in_channels: a multiple of nblocks.
        out_channels: likewise.
        kernel_size: height and width.
        nblocks: groups of either factor; by default the common divisor of the channels nearest to the square root of
            the smaller number.
        rank: of what a group of inputs and a group of outputs share; by default as large as keeps the channels
            between the factors as many as the smaller number.
        stride, padding, dilation: of the kernels, (height, width) or one number.
        bias: whether to add one.
        device, dtype: of the parameters.
        generator: draws the initial values; torch's global one by default.

    Raises:
        ConfigError: nblocks does not divide the channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], nblocks: int | None = None,
        rank: int | None = None, *, stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1, bias: bool = True, device: Any = None, dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        nblocks = channel_blocks(in_channels, out_channels) if nblocks is None else nblocks
        if nblocks < 1 or in_channels % nblocks or out_channels % nblocks:
            raise ConfigError(f"nblocks={nblocks} does not divide {in_channels} and {out_channels} channels")
        self.in_channels, self.out_channels, self.nblocks = in_channels, out_channels, nblocks
        self.kernel_size, self.stride = _two(kernel_size), _two(stride)
        self.padding, self.dilation = _two(padding), _two(dilation)
        self.rank = rank or max(1, -(-min(in_channels, out_channels) // nblocks**2))
        self.chain = KSChain.monarch(in_channels, out_channels, nblocks, self.rank)
        settings = {"device": device, "dtype": dtype}
        between = self.chain.patterns[0].out_features
        self.kernels = nn.Parameter(torch.empty(between, in_channels // nblocks, *self.kernel_size, **settings))
        self.mix = nn.Parameter(torch.empty(self.chain.patterns[1].shape, **settings))
        self.bias = nn.Parameter(torch.empty(out_channels, **settings)) if bias else None
        size = in_channels * out_channels * math.prod(self.kernel_size)
        self._dense = FasterDense(size / self.weight_params, size * self.mix.element_size(), in_channels)
        self.reset_parameters(generator)

    @property
    def weight_params(self) -> int:
        """Learned values of the kernels, the bias not counted."""
        return self.kernels.numel() + self.mix.numel()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new values: the product has the variance of `nn.Conv2d`'s own start."""
        for p in (self.kernels, self.mix):
            bound = (1 / 3) ** 0.25 * math.sqrt(3 / (p[0].numel() if p is self.kernels else p.shape[3]))
            p.uniform_(-bound, bound, generator=generator)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
            self.bias.uniform_(-bound, bound, generator=generator)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, nblocks: int | None = None, rank: int | None = None) -> Self:
        """The nearest such layer to a trained convolution (closed form, see `project`), with its bias.

        Raises:
            UnsupportedLayerError: the convolution is grouped or pads with anything but zeros.
        """
        if conv.groups != 1 or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise UnsupportedLayerError(
                f"a convolution with groups={conv.groups}, padding {conv.padding!r} ({conv.padding_mode}) "
                "has no Monarch form: it needs groups=1 and zeros as padding"
            )
        new = cls(
            conv.in_channels, conv.out_channels, _pair(conv.kernel_size), nblocks, rank, stride=_pair(conv.stride),
            padding=_pair(conv.padding), dilation=_pair(conv.dilation), bias=conv.bias is not None,
            device=conv.weight.device, dtype=conv.weight.dtype, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        with torch.no_grad():
            new._fit(conv.weight.detach())
            if new.bias is not None and conv.bias is not None:
                new.bias.copy_(conv.bias)
        return new.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> (batch, out_channels, height, width)."""
        if torch.is_grad_enabled() or not eager(x):
            return self._run(x)
        state = state_of((self.kernels, self.mix))
        return self._dense.run(x, state, self._run, self._whole, self.to_dense)

    def to_dense(self) -> Tensor:
        """The weight (out, in, height, width) that a dense convolution would need."""
        first = torch.block_diag(*self.kernels.reshape(self.nblocks, -1, self.kernels[0].numel()))
        whole = ks_multiply(first, [self.mix], layout="feature_first")
        return whole.reshape(self.out_channels, self.in_channels, *self.kernel_size)

    def extra_repr(self) -> str:
        """Sizes, structure and how much smaller it is than dense."""
        size = "x".join(map(str, self.kernel_size))
        part = self.weight_params / (self.in_channels * self.out_channels * math.prod(self.kernel_size))
        return f"{self.in_channels} -> {self.out_channels}, {size}, {self.nblocks} groups, {part:.1%} of dense"

    def _run(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            x = x if self.stride == (1, 1) else x[:, :, :: self.stride[0], :: self.stride[1]]
            factors = [self.kernels.reshape(self.nblocks, 1, -1, self.kernels.shape[1]), self.mix]
        else:
            x = F.conv2d(x, self.kernels, None, self.stride, self.padding, self.dilation, self.nblocks)
            factors = [self.mix]
        y = ks_multiply(x.flatten(2), factors, self.bias, layout="feature_first")
        return y.reshape(*y.shape[:2], *x.shape[2:])

    def _whole(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)

    def _fit(self, weight: Tensor) -> None:
        """One row of kernels is a block row of the first factor, so the whole kernel takes part in the projection."""
        first = KSChain.block_diagonal(weight[0].numel(), self.chain.patterns[0].out_features, self.nblocks)
        found = project(weight.flatten(1), KSChain((*first.patterns, self.chain.patterns[1])))
        self.kernels.copy_(found.factors[0].reshape(self.kernels.shape))
        self.mix.copy_(found.factors[1])


def channel_blocks(in_channels: int, out_channels: int) -> int:
    """The common divisor of both numbers of channels that is nearest to the square root of the smaller one.

    >>> channel_blocks(128, 256), channel_blocks(3, 16)
    (8, 1)
    """
    divisor = math.gcd(in_channels, out_channels)
    wanted = min(in_channels, out_channels) ** 0.5
    return min((k for k in range(1, divisor + 1) if divisor % k == 0), key=lambda k: abs(k - wanted))


def _two(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    high, wide = sizes
    return high, wide
