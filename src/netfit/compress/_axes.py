"""Which tensors and attributes of a layer run along its channels.

This is the only place that knows layer types. A layer type that is not here is not sliced: its group is frozen.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

Side = Literal["in", "out"]


@dataclass(frozen=True)
class Slot:
    """A tensor (``dim`` is the axis of the channels) or an integer attribute (``dim`` is None) of a layer.

    ``copies``: the axis holds the channels this many times in a row (q, k, v of attention).
    ``blocks``: axis 0 is cut into so many blocks and the axis holds only the channels of each block, as in the
    weight of a grouped convolution.
    """

    attr: str
    dim: int | None
    copies: int = 1
    blocks: int = 1


@dataclass(frozen=True)
class Axis:
    """All slots of one side of a layer; ``divisor`` blocks of channels must keep equal numbers."""

    slots: tuple[Slot, ...]
    divisor: int = 1


def axis_of(module: nn.Module, side: Side) -> Axis | None:
    """The channel axis of a layer, or None when netfit cannot slice this kind of layer."""
    axis = _axis(module, side)
    if axis is None:
        return None
    present = (s for s in axis.slots if _get(module, s.attr) is not None)
    return replace(axis, slots=tuple(present))


def _axis(module: nn.Module, side: Side) -> Axis | None:
    match module:
        case _ConvNd():
            return _conv_axis(module, side)
        case nn.Linear():
            return (
                _axis_along(0, "weight bias", "out_features")
                if side == "out"
                else _axis_along(1, "weight", "in_features")
            )
        case _BatchNorm() | _InstanceNorm():
            return _axis_along(0, "weight bias running_mean running_var", "num_features")
        case nn.GroupNorm():
            return replace(_axis_along(0, "weight bias", "num_channels"), divisor=module.num_groups)
        case nn.LayerNorm():
            return _axis_along(len(module.normalized_shape) - 1, "weight bias", "normalized_shape")
        case nn.PReLU():
            return _axis_along(0, "weight", "num_parameters") if module.num_parameters > 1 else Axis(())
        case nn.Embedding():
            return _axis_along(1, "weight", "embedding_dim")
        case nn.MultiheadAttention():
            return _attention_axis(module)
        case nn.LSTM() | nn.GRU() | nn.RNN() if side == "in":
            return _axis_along(1, "weight_ih_l0 weight_ih_l0_reverse", "input_size")
    return None


def _axis_along(dim: int, tensors: str, size: str) -> Axis:
    return Axis((*(Slot(t, dim) for t in tensors.split()), Slot(size, None)))


def _conv_axis(conv: _ConvNd, side: Side) -> Axis | None:
    groups = conv.groups
    if groups > 1 and groups == conv.out_channels:  # torch-pruning's depthwise: one axis for both sides
        both = Axis(
            (*_axis_along(0, "weight bias", "groups").slots, Slot("in_channels", None), Slot("out_channels", None))
        )
        return both if groups == conv.in_channels else None
    # A transposed convolution stores (in, out / groups, ...), the others (out, in / groups, ...).
    leading = "in" if conv.transposed else "out"
    weight = Slot("weight", 0) if side == leading else Slot("weight", 1, blocks=groups)
    bias = (Slot("bias", 0),) if side == "out" else ()
    return Axis((weight, *bias, Slot(f"{side}_channels", None)), divisor=groups)


def _attention_axis(attention: nn.MultiheadAttention) -> Axis | None:
    if attention.in_proj_weight is None:  # keys and values of other widths: not coupled to the embedding
        return None
    weights = (Slot("in_proj_weight", 0, copies=3), Slot("in_proj_weight", 1), Slot("in_proj_bias", 0, copies=3))
    outputs = (Slot("out_proj.weight", 0), Slot("out_proj.weight", 1), Slot("out_proj.bias", 0))
    extra = (Slot("bias_k", 2), Slot("bias_v", 2))
    sizes = ("embed_dim", "kdim", "vdim", "out_proj.in_features", "out_proj.out_features")
    return Axis((*weights, *outputs, *extra, *(Slot(s, None) for s in sizes)), divisor=attention.num_heads)


def _get(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part, None)
    return module
