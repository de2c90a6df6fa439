"""Uniform affine quantization: q = saturate(round(x / scale) + zero_point), x' = (q - zero_point) * scale.

The arithmetic is that of ONNX QuantizeLinear and DequantizeLinear to the last bit: a true division, ties to
even, saturation. `torch.fake_quantize_*` is not used: its kernel multiplies by the reciprocal of the scale,
which moves a tenth of exact ties by a whole step, and on this CPU build it runs ten times slower than the
five elementwise operations below.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.quant._axis import along, other_dims

# The product of two scales is the scale of an int32 bias; 2^-60 keeps it a normal fp32 number.
MIN_SCALE = 2.0**-60


@dataclass(frozen=True)
class Affine:
    """Uniform affine format: `bits` wide integers, one scale and zero point per tensor or per channel.

    Signed symmetric formats leave out the most negative code, so that negation is exact (int8 is
    [-127, 127]), as inference runtimes want their weights. Calling the format quantizes a tensor with the
    minimum and maximum of that very tensor.

    Args:
        bits: width of a code, 1 to 16.
        signed: codes are signed integers.
        symmetric: the zero point is 0.
        axis: channel axis that has one scale per slice; None for one scale per tensor.

    Raises:
        ConfigError: `bits` is out of range, or 1 for a signed symmetric format.

    Example:
        >>> Affine(bits=2)(torch.tensor([-1.0, -0.4, 0.2, 0.6]))
        tensor([-1.,  0.,  0.,  1.])
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    axis: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ConfigError(f"bits={self.bits} of an affine format: choose 1 to 16")
        if self.bits == 1 and self.signed and self.symmetric:
            raise ConfigError("bits=1 leaves a signed symmetric format only the code 0: use Binary() instead")

    @property
    def qmin(self) -> int:
        """Smallest code."""
        if not self.signed:
            return 0
        return -(2 ** (self.bits - 1)) + int(self.symmetric)

    @property
    def qmax(self) -> int:
        """Largest code."""
        return int(2 ** (self.bits - int(self.signed))) - 1

    def qparams(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (fp32) and zero point (int32) that cover the range from `lo` to `hi` and the number 0.

        Zero must be exact: padding and ReLU produce it. So a range with `lo >= 0` gets the zero point `qmin`.
        An empty range, that of an all-zero channel, gets the scale 1.
        """
        lo, hi = lo.float().clamp_max(0), hi.float().clamp_min(0)
        if self.symmetric:
            reach = torch.maximum(-lo, hi) if self.signed else hi
            steps = self.qmax
        else:
            reach, steps = hi - lo, self.qmax - self.qmin
        scale = torch.where(reach > 0, reach / steps, 1.0).clamp_min(MIN_SCALE)
        if self.symmetric:
            return scale, torch.zeros_like(scale, dtype=torch.int32)
        return scale, (self.qmin - lo / scale).round().clamp(self.qmin, self.qmax).int()

    def __call__(self, x: Tensor) -> Tensor:
        """Quantize with the range of `x` itself; the gradient passes straight through."""
        if x.numel() == 0:
            return x
        dims = other_dims(x, self.axis)
        scale, zero_point = self.qparams(x.detach().amin(dims), x.detach().amax(dims))
        return fake_quantize(x, scale, zero_point, self.qmin, self.qmax, self.axis)


class _FakeQuantize(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, noise: Tensor | None) -> Tensor:
        q = x.float() / scale
        q = q.round_() if noise is None else q.add_(noise).floor_()
        # hardtanh_ is clamp_, but vmap knows it.
        q = torch.nn.functional.hardtanh_(q.add_(zero_point), qmin, qmax)
        return q.sub_(zero_point).mul_(scale).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        x, scale, zero_point, ctx.qmin, ctx.qmax, _ = inputs
        # x is alive anyway (the operator before or after saves it), a mask would be new memory.
        ctx.save_for_backward(x, scale, zero_point)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, scale, zero_point = ctx.saved_tensors
        grad = grad.float()
        v = x.float() / scale
        code = (v.clone() if ctx.needs_input_grad[1] else v).round_().add_(zero_point)
        grad_x = grad_scale = None
        if ctx.needs_input_grad[1]:
            # LSQ eq. 3: (round(v) - v) inside the range, the clipped code outside.
            inside = (code >= ctx.qmin) & (code <= ctx.qmax)
            slope = code.clamp(ctx.qmin, ctx.qmax).sub_(zero_point).sub_(v * inside)
            grad_scale = (grad * slope).sum_to_size(scale.shape)
        if ctx.needs_input_grad[0]:
            # The mask in one pass: codes are whole numbers, so open bounds half a step outside are exact.
            masked = torch.ops.aten.hardtanh_backward(grad, code, ctx.qmin - 0.5, ctx.qmax + 0.5)
            grad_x = masked.to(x.dtype)
        return grad_x, grad_scale, None, None, None, None


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    axis: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Quantize and dequantize: the values an integer runtime would see, in floating point.

    Computed in fp32 whatever the dtype of `x`, bit-true to ONNX QuantizeLinear then DequantizeLinear. The
    gradient passes straight through to `x` where the code was not clipped; the gradient of `scale` is that
    of "Learned Step Size Quantization" (Esser et al., 2020).

    Args:
        x: any shape, floating point.
        scale: positive fp32, shape () or (channels,).
        zero_point: int32, shape of `scale`.
        qmin: smallest code.
        qmax: largest code.
        axis: the channel axis of `x` that `scale` runs along; None when `scale` is one number.
        generator: round stochastically (unbiased) with draws from it instead of to the nearest code.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ConfigError: the number of scales does not fit the channel axis.

    Example:
        >>> x = torch.tensor([-0.3, 0.25, 0.75, 9.0])
        >>> fake_quantize(x, torch.tensor(0.5), torch.tensor(0), 0, 7)
        tensor([0.0000, 0.0000, 1.0000, 3.5000])
    """
    slices = 1 if axis is None else x.shape[axis]
    if scale.numel() != slices:
        where = "one tensor" if axis is None else f"axis {axis} of shape {tuple(x.shape)}"
        raise ConfigError(f"{scale.numel()} scales for {where}: give {slices}")
    noise = None
    if generator is not None:
        noise = torch.rand(x.shape, generator=generator, device=x.device)
    scale, zero_point = along(scale.float(), x, axis), along(zero_point, x, axis)
    y: Tensor = _FakeQuantize.apply(x, scale, zero_point, qmin, qmax, noise)
    return y
