"""Which saved tensors of which operations may be kept in which way.

What the backward pass does with a tensor decides how wrong it may be. The input of a convolution or a linear layer
is read for that weight's gradient alone. The input of a normalization, an activation or a product takes part in the
gradient of everything below. ReLU, dropout and pooling read almost nothing of what they save.
"""

from .codecs import Codec, Keep, ShapeOnly, SignMask

__all__ = ["CHEAP", "KINDS", "LEAST", "POOLS", "kept_as"]

LEAST = 4096  # elements: below, the bookkeeping costs more than the tensor

INPUTS = frozenset(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"))
MASKED = frozenset(("relu", "dropout"))
POOLS = frozenset(f"{how}_pool{n}d" for how in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3))
NORMS = frozenset(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"))
POINTWISE = frozenset(
    ("gelu", "silu", "mish", "elu", "selu", "celu", "softplus", "leaky_relu", "relu6", "hardswish", "hardsigmoid",
     "sigmoid", "tanh", "logsigmoid", "mul", "div", "pow", "exp")
)  # fmt: skip
OTHERS = frozenset(("matmul", "addmm", "baddbmm", "einsum", "attention", "softmax", "log_softmax", "lstm", "gru"))
KINDS = INPUTS | MASKED | POOLS | NORMS | POINTWISE | OTHERS
# Results that are made again for the price of reading their input, and of one tensor besides parameters.
CHEAP = frozenset(("batch_norm", "relu", "gelu", "silu", "mul", "add", "sigmoid", "tanh", "relu6", "leaky_relu"))


def kept_as(codec: Codec, kind: str) -> Codec:
    """What becomes of a tensor of an operation when a policy asks for `codec`: a codec that does not fit keeps it."""
    if isinstance(codec, Keep) or kind not in KINDS:
        return Keep()
    if kind in MASKED:
        return SignMask(scaled=kind != "relu")
    if kind in POOLS:
        return ShapeOnly()
    if isinstance(codec, SignMask | ShapeOnly) or (codec.inputs_only and kind not in INPUTS):
        return Keep()
    return codec
