"""The module engine: normalization layers with a backward pass of their own, which torch.compile can trace.

A compiler recomputes what is cheap (convolutions' inputs through ReLU and BatchNorm) and keeps the inputs of
normalizations; an opaque function anywhere else would only stand in its way. So those inputs are all it packs.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean
from netfit.kernels import pack_groups, unpack_groups

from .codecs import Codec, KBit, Keep

__all__ = ["swap_modules"]


def swap_modules(model: nn.Module, entries: Mapping[str, Codec], seed: int) -> Callable[[], None]:
    """Give the normalization layers that a policy names packed inputs, in place; returns what takes it back.

    Raises:
        ConfigError: a pattern matches no such layer, or its codec is not one of k bits.
    """
    swapped: list[tuple[nn.Module, type[nn.Module]]] = []
    layers = {name: m for name, m in model.named_modules() if type(m) in _CLASSES}
    for number, (name, module) in enumerate(layers.items()):
        kind = "kind:layer_norm" if isinstance(module, nn.LayerNorm) else "kind:batch_norm"
        hits = [c for pattern, c in entries.items() if fnmatchcase(name, pattern) or fnmatchcase(kind, pattern)]
        if not hits or isinstance(hits[-1], Keep):
            continue
        if not isinstance(hits[-1], KBit):
            raise ConfigError(f"{name}: the module engine keeps inputs in q1, q2, q4 or q8, not {hits[-1]}")
        swapped.append((module, type(module)))
        module.register_buffer("saved_step", torch.tensor(seed + number * 2**32), persistent=False)
        module.saved_as = hits[-1]
        module.__class__ = _CLASSES[type(module)]
    if not swapped:
        pattern = next(iter(entries), "")
        raise ConfigError(f"pattern {pattern!r} matches no BatchNorm or LayerNorm: {did_you_mean(pattern, layers)}")

    def undo() -> None:
        for module, cls in swapped:
            module.__class__ = cls
            del module.saved_as, module.saved_step

    return undo


@torch.library.custom_op("netfit::pack_saved", mutates_args=())
def pack_saved(x: Tensor, bits: int, group_size: int, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`pack_groups` with the seed in a tensor: a number that changes every step would compile every step."""
    return pack_groups(x, bits, group_size, int(step))


@pack_saved.register_fake
def _(x: Tensor, bits: int, group_size: int, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    side = x.new_empty((x.numel() + group_size - 1) // group_size, dtype=torch.float32)
    return x.new_empty((x.numel() * bits + 7) // 8, dtype=torch.uint8), side, torch.empty_like(side)


class _BatchNorm(torch.autograd.Function):
    """(y, mean, 1 / deviation) of a batch; keeps x in k bits and the statistics exactly."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, step: Tensor, eps: float, bits: int, size: int
    ) -> tuple[Tensor, ...]:
        y, mean, inverse = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        return (y, mean, inverse, *pack_saved(x, bits, size, step))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, _, ctx.eps, ctx.bits, ctx.size = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(weight, *output[1:])
        ctx.shape, ctx.dtype = x.shape, x.dtype

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        weight, mean, inverse, codes, lo, scale = ctx.saved_tensors
        x = unpack_groups(codes, lo, scale, ctx.bits, ctx.size, ctx.shape.numel()).to(ctx.dtype).view(ctx.shape)
        grads = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, None, None, mean, inverse, True, ctx.eps, [True, weight is not None, weight is not None]
        )
        return (*grads, None, None, None, None)


class _LayerNorm(torch.autograd.Function):
    """(y, mean, 1 / deviation) of each row; keeps x in k bits and the statistics exactly."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, step: Tensor, eps: float, bits: int, size: int,
        shape: list[int],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        y, mean, inverse = torch.native_layer_norm(x, shape, weight, bias, eps)
        return (y, mean, inverse, *pack_saved(x, bits, size, step))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, _, _, ctx.bits, ctx.size, ctx.rows = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(weight, bias, *output[1:])
        ctx.shape, ctx.dtype = x.shape, x.dtype

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        weight, bias, mean, inverse, codes, lo, scale = ctx.saved_tensors
        x = unpack_groups(codes, lo, scale, ctx.bits, ctx.size, ctx.shape.numel()).to(ctx.dtype).view(ctx.shape)
        mask = [True, weight is not None, bias is not None]
        grads = torch.ops.aten.native_layer_norm_backward(dy, x, ctx.rows, mean, inverse, weight, bias, mask)
        return (*grads, None, None, None, None, None)


class PackedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm that keeps its input in k bits while it trains."""

    saved_as: KBit
    saved_step: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, ...) -> the same."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        self._check_input_dim(x)
        codec, weight, bias = self.saved_as, self.weight, self.bias
        y, mean, inverse, *_ = _BatchNorm.apply(
            x.contiguous(), weight, bias, self.saved_step, self.eps, codec.bits, codec.group_size
        )
        self.saved_step += 1
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._track(mean, inverse, x.numel() // x.shape[1])
        return y

    def _track(self, mean: Tensor, inverse: Tensor, n: int) -> None:
        """Running statistics as BatchNorm keeps them: the variance is that of a sample."""
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        with torch.no_grad():
            variance = (inverse.pow(-2) - self.eps) * (n / max(n - 1, 1))
            rate = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum  # type: ignore[operator]
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)  # type: ignore[union-attr]
            self.running_var.lerp_(variance.to(self.running_var.dtype), rate)  # type: ignore[union-attr]


class PackedBatchNorm1d(PackedBatchNorm, nn.BatchNorm1d):
    """The same for (batch, channels) and (batch, channels, length)."""


class PackedBatchNorm2d(PackedBatchNorm, nn.BatchNorm2d):
    """The same for images."""


class PackedLayerNorm(nn.LayerNorm):
    """LayerNorm that keeps its input in k bits while it trains."""

    saved_as: KBit
    saved_step: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(..., *normalized_shape) -> the same."""
        if not torch.is_grad_enabled():
            return super().forward(x)
        codec = self.saved_as
        y, *_ = _LayerNorm.apply(
            x.contiguous(), self.weight, self.bias, self.saved_step, self.eps, codec.bits, codec.group_size,
            list(self.normalized_shape),
        )  # fmt: skip
        self.saved_step += 1
        return y


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: PackedBatchNorm1d,
    nn.BatchNorm2d: PackedBatchNorm2d,
    nn.LayerNorm: PackedLayerNorm,
}
