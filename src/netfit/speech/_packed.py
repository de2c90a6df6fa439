"""The mask network in whole numbers: what a device would run."""

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.kernels.linear import Codes, IntegerLinear
from netfit.quant import Binary, FakeQuantize
from netfit.surgery import Quantization

from ._estimator import MaskEstimator

__all__ = ["PackedNetwork"]


class PackedNetwork:
    """A quantized mask network on the integer kernels of `netfit.kernels.linear`: weights of 1 bit take one bit.

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

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of standardised features.

        Args:
            x: (n, inputs), float32.

        Returns:
            (n, outputs).
        """
        for layer in self._layers:
            x = layer(x)
        return x


def _layer(layers: dict[str, nn.Module], name: str, state: Quantization) -> IntegerLinear:
    linear = layers[name]
    assert isinstance(linear, nn.Linear)
    bits = name in state.bits
    activation = state.bits[name].activation if bits else state.activations[state.plan.inputs[name, 0]]
    quantizer = state.bits[name].weight if bits else state.weights[name]
    weight = linear.weight.detach()
    if isinstance(quantizer, Binary):
        whole, rows = torch.where(weight >= 0, 1, -1).to(torch.int8), weight.abs().mean(1)
    else:
        rows = quantizer.freeze(weight).qparams()[0].reshape(-1)
        whole = (weight / rows[:, None]).round().clamp(quantizer.format.qmin, quantizer.format.qmax).to(torch.int8)
    norm = layers.get(name.replace("hidden", "norm"))
    gain, shift = torch.ones(len(weight)), torch.zeros(len(weight))
    if isinstance(norm, nn.BatchNorm1d):
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None and var is not None
        gain = norm.weight.detach() / torch.sqrt(var + norm.eps)
        shift = norm.bias.detach() - mean * gain
    codes = _codes(activation)
    step = rows * codes.scale
    less = whole.float().sum(1) * codes.zero * step  # the code of zero is not 0
    head = _rounder(layers, name, state) if bits else None
    return IntegerLinear(
        whole, gain * step, gain * (linear.bias.detach() - less) + shift, codes,
        relu=isinstance(norm, nn.BatchNorm1d), early=_codes(head) if head else None,
    )  # fmt: skip


def _codes(quantizer: FakeQuantize) -> Codes:
    scale, zero, _, top = quantizer.qparams()
    return Codes(float(scale), float(zero), float(top))


def _rounder(layers: dict[str, nn.Module], name: str, state: Quantization) -> FakeQuantize | None:
    """What rounds the result of the operation right before a layer of bits, as its plan says, if anything does."""
    order = list(layers)
    head = state.plan.points.get((order[order.index(name) - 1], 0)) if order[0] != name else None
    return state.activations[head] if head else None
