"""The mask network in whole numbers: what a device would run."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.kernels.dense import ConvShape, Prepared
from netfit.quant import Binary, FakeQuantize
from netfit.surgery import Quantization

from ._estimator import MaskEstimator

__all__ = ["PackedNetwork"]

_FRAMES = 64  # of one product; a single frame has kernels of its own


@dataclass(frozen=True)
class _Layer:
    """One dense layer: codes in, codes of weights, and what turns the integer sums into numbers."""

    weight: Tensor  # int8 (rows, k); -1 and +1 for 1-bit weights
    planes: int  # bits of an activation where kernels of bits run, 0 where int8 does
    scale: Tensor  # of the input's codes, ()
    zero: Tensor  # code of zero
    top: int  # largest code
    gain: Tensor  # (rows,)
    shift: Tensor  # (rows,)
    relu: bool
    before: FakeQuantize | None  # rounds what an int8 layer hands to a layer of bits, as its plan says

    def codes(self, x: Tensor) -> Tensor:
        """Input (k, n) as codes, (1, k, 1, n)."""
        x = self.before(x) if self.before else x
        found = (x / self.scale).round_().add_(self.zero).clamp_(0, self.top)
        codes = found.to(torch.uint8) if self.planes else (found - 128).to(torch.int8)
        return codes.contiguous()[None, :, None]

    def prepared(self, frames: int) -> Prepared:
        shape = ConvShape.gemm(len(self.weight), frames, self.weight.shape[1])
        weight = self.weight[:, :, None, None]
        return (
            Prepared(shape, weight, precision="bits", planes=self.planes)
            if self.planes
            else Prepared(shape, weight, precision="int8")
        )

    def numbers(self, sums: Tensor) -> Tensor:
        out = sums[0, :, 0].float().mul_(self.gain[:, None]).add_(self.shift[:, None])
        return out.clamp_(min=0) if self.relu else out


class PackedNetwork:
    """A quantized mask network on the integer kernels of `netfit.kernels`: bits for 1 and 2 bits, int8 for the rest.

    It computes what the network's simulation computes, up to the rounding of the last bit of a sum.

    Args:
        model: with a policy of 1 to 8 bits on all layers, calibrated.

    Raises:
        ConfigError: a layer is not quantized, or was not calibrated.
        TargetUnavailable: there is no C compiler.
    """

    def __init__(self, model: MaskEstimator) -> None:
        state = Quantization.of(model.net)
        layers = dict(model.net.named_children())
        names = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
        if state is None or any(name not in state.widths() for name in names):
            raise ConfigError("the mask network has layers of full precision: apply a policy such as policy_of('w1a8')")
        self._layers = [_layer(layers, name, state) for name in names]
        self._kernels = {frames: [layer.prepared(frames) for layer in self._layers] for frames in (1, _FRAMES)}

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of standardised features.

        Args:
            x: (n, inputs), float32.

        Returns:
            (n, outputs).
        """
        if len(x) == 1:
            return self._run(x.T, 1).T
        parts = [torch.nn.functional.pad(p, (0, 0, 0, _FRAMES - len(p))) for p in x.split(_FRAMES)]
        return torch.cat([self._run(p.T, _FRAMES) for p in parts], 1)[:, : len(x)].T

    def _run(self, x: Tensor, frames: int) -> Tensor:
        for layer, kernel in zip(self._layers, self._kernels[frames], strict=True):
            x = layer.numbers(kernel(layer.codes(x)))
        return x


def _layer(layers: dict[str, nn.Module], name: str, state: Quantization) -> _Layer:
    linear = layers[name]
    assert isinstance(linear, nn.Linear)
    bits = name in state.bits
    activation = state.bits[name].activation if bits else state.activations[state.plan.inputs[name, 0]]
    quantizer = state.bits[name].weight if bits else state.weights[name]
    weight = linear.weight.detach()
    if isinstance(quantizer, Binary):
        codes, rows = torch.where(weight >= 0, 1, -1).to(torch.int8), weight.abs().mean(1)
    else:
        rows = quantizer.freeze(weight).qparams()[0].reshape(-1)
        codes = (weight / rows[:, None]).round().clamp(quantizer.format.qmin, quantizer.format.qmax).to(torch.int8)
    scale, zero, _, top = activation.qparams()
    norm = layers.get(name.replace("hidden", "norm"))
    gain, shift = torch.ones(len(weight)), torch.zeros(len(weight))
    if isinstance(norm, nn.BatchNorm1d):
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None and var is not None
        gain = norm.weight.detach() / torch.sqrt(var + norm.eps)
        shift = norm.bias.detach() - mean * gain
    planes = activation.format.bits if bits else 0
    offset = (0 if bits else 128) - zero.float()  # int8 kernels see codes less 128
    sums = codes.float().sum(1) * offset * rows * scale
    return _Layer(
        codes, planes, scale, zero, top, gain * rows * scale, gain * (sums + linear.bias.detach()) + shift,
        isinstance(norm, nn.BatchNorm1d), _rounder(layers, name, state) if bits else None,
    )  # fmt: skip


def _rounder(layers: dict[str, nn.Module], name: str, state: Quantization) -> FakeQuantize | None:
    """What rounds the result of the operation right before a layer, if anything does."""
    order = list(layers)
    head = state.plan.points.get((order[order.index(name) - 1], 0)) if order[0] != name else None
    return state.activations[head] if head else None
