"""Networks without BatchNorm: give the channels that stay their mean and spread back.

BatchNorm layers are refreshed after pruning; without them every layer that reads fewer channels sums up less. The mean
and the deviation of each result are restored layer by layer, as bias correction does after quantization ("Data-Free
Quantization Through Weight Equalization and Bias Correction", 2019), from a few training inputs.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from netfit.train import logits

__all__ = ["correct", "moments", "needs_correction"]

Moments = dict[str, tuple[Tensor, Tensor]]
STRONGEST = 4.0  # a channel that hardly varies any more is not blown up beyond this


def needs_correction(model: nn.Module) -> bool:
    """Whether no BatchNorm layer takes care of it."""
    return not any(isinstance(m, _BatchNorm) for m in model.modules())


def moments(model: nn.Module, x: Tensor) -> Moments:
    """Mean and deviation of each channel of each convolution and linear layer, at its first call.

    Args:
        model: the uncompressed network.
        x: training inputs (n, ...).
    """
    found: Moments = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            found.setdefault(name, _moments(module, out))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in _layers(model)]
    try:
        logits(model, x, len(x))
    finally:
        for handle in handles:
            handle.remove()
    return found


def correct(model: nn.Module, wanted: Moments, kept: Mapping[str, Tensor], x: Tensor) -> None:
    """Rescale and shift the layers of a pruned network until their results have the original's moments, in place.

    Layers without a bias are rescaled only. One forward pass corrects all: each layer sees what the corrected ones
    before it give.

    Args:
        model: the pruned network.
        wanted: `moments` of the uncompressed network.
        kept: layer name -> output channels that stayed; layers that are not named kept all of theirs.
        x: the inputs that `wanted` was measured on.
    """
    handles: dict[str, Any] = {}

    def mend(name: str) -> Any:
        def hook(module: Any, args: Any, out: Tensor) -> Tensor:
            handles[name].remove()  # further calls of a shared layer use the corrected weights
            mean, std = _moments(module, out)
            index = kept.get(name, torch.arange(len(mean)))
            mean_before, std_before = (t[index] for t in wanted[name])
            scale = torch.where(std > 0, std_before / std.clamp_min(1e-12), 1.0).clamp(max=STRONGEST)
            module.weight.mul_(scale.view(-1, *[1] * (module.weight.dim() - 1)))
            shift = torch.zeros_like(mean)
            if module.bias is not None:
                shift = mean_before - scale * mean
                module.bias.mul_(scale).add_(shift)
            view = (1, -1, *[1] * (out.dim() - 2)) if isinstance(module, _ConvNd) else (-1,)
            return out * scale.view(view) + shift.view(view)

        return hook

    for name, module in _layers(model):
        if name in wanted:  # some layers are computed by the module around them
            handles[name] = module.register_forward_hook(mend(name))
    try:
        logits(model, x, len(x))
    finally:
        for handle in handles.values():
            handle.remove()


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and not module.transposed):
            yield name, module


def _moments(module: nn.Module, out: Tensor) -> tuple[Tensor, Tensor]:
    axis = 1 if isinstance(module, _ConvNd) else out.dim() - 1
    rows = out.transpose(0, axis).flatten(1)
    return rows.mean(1), rows.std(1)
