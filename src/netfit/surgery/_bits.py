"""Layers of 1-bit weights and 1- or 2-bit activations: they round what they read, and nothing around them."""

from typing import Any

from netfit.quant import Binary, FakeQuantize

from ._hooks import CallHook

__all__ = ["BIT_PRECISIONS", "RoundOperands"]

BIT_PRECISIONS = ("w1a1", "w1a2")


class RoundOperands(CallHook):
    """Rounds what one layer reads: its weight to +-mean |w| per output channel, its input to `bits`.

    Other readers of the input see it as it was, and the result is not rounded: a residual network whose every tensor
    had two or four values would not learn. The step of the input is started with the least squared error and then
    trained ("Learned Step Size Quantization", Esser et al., 2020).

    Attributes:
        weight: quantizer of the weight.
        activation: quantizer of the input, unsigned with a zero point.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.weight = Binary(axis=0)
        self.activation = FakeQuantize.for_activation(bits, observer="mse", learned=True)

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call with both operands rounded."""
        x, *rest = args
        if "weight" in kwargs:
            return (self.activation(x), *rest), {**kwargs, "weight": self.weight(kwargs["weight"])}
        return (self.activation(x), self.weight(rest[0]), *rest[1:]), kwargs
