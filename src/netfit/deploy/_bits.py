"""1-bit layers in an ONNX file: the operator ``BitConv`` of the domain ``netfit``, run by OpenVINO with `kernels`."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from netfit.errors import UnsupportedLayerError, require
from netfit.kernels import pack_signs

from ._grid import Grid

DOMAIN, OPERATOR = "netfit", "BitConv"
_SPATIAL = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]}


def bit_precision(grid: Grid) -> str:
    """Name on the precision ladder of a layer whose input has this grid.

    >>> bit_precision(Grid(0.5, 0, 4))
    'w1a2'
    """
    return f"w1a{_bits(grid)}"


def _bits(grid: Grid) -> int:
    return (grid.levels - 1).bit_length()


def bit_layers(proto: Any) -> dict[str, str]:
    """Node name -> precision of the 1-bit layers of an ONNX model."""
    found = {}
    for node in proto.graph.node:
        if node.domain == DOMAIN:
            found[node.name] = f"w1a{next(a.i for a in node.attribute if a.name == 'bits')}"
    return found


def refuse_bit_layers(proto: Any) -> None:
    """Say why ONNX Runtime cannot run a network, when it cannot.

    Raises:
        UnsupportedLayerError: the network has 1-bit layers.
    """
    for name, precision in bit_layers(proto).items():
        raise UnsupportedLayerError(
            f"ONNX Runtime has no kernel for {name} at {precision}: run the network in OpenVINO, or ask for int8 there"
        )


def bit_conv(
    node: Any, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, grid: Grid, relu: Any = None
) -> tuple[Any, dict[str, NDArray[Any]]]:
    """The operator that takes the place of a convolution, and the tensors it reads beside the convolution's input.

    Args:
        node: the ONNX node; its names are kept.
        weight: fp32 (out_channels, in_channels, height, width); only signs and the mean magnitude of each output
            channel count.
        bias: fp32 (out_channels,).
        grid: of the input, 2 or 4 levels.
        relu: the node that cuts the result at zero, if the operator shall do that too and make its output.

    Raises:
        UnsupportedLayerError: the layer is no plain two-dimensional convolution.
    """
    helper = require("onnx", "export").helper
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = given.get("group", 1) == 1 and given.get("auto_pad", b"NOTSET") == b"NOTSET"
    if node.op_type != "Conv" or weight.ndim != 4 or not plain:
        raise UnsupportedLayerError(
            f"{node.name} cannot run at {bit_precision(grid)}: there are 1-bit kernels for conv2d without groups only; "
            "ask for int8 there"
        )
    scale = np.abs(weight).mean((1, 2, 3), dtype=np.float64) * np.float64(np.float32(grid.scale))
    tensors = {
        "weight": pack_weight(weight),
        "thresholds": thresholds(grid),
        "scale": scale.astype(np.float32),
        "bias": np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32),
    }
    named = {f"{node.name}/{role}": value for role, value in tensors.items()}
    spatial = {name: list(given.get(name, default)) for name, default in _SPATIAL.items()}
    made = helper.make_node(
        OPERATOR, [node.input[0], *named], list((relu or node).output), node.name, domain=DOMAIN, bits=_bits(grid),
        kernel_shape=list(weight.shape[2:]), zero_point=grid.zero_point, relu=int(relu is not None), **spatial,
    )  # fmt: skip
    return made, named


def pack_weight(weight: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Signs of a weight as 64-bit words (out_channels, words, height, width), stored as bytes.

    Bytes, because OpenVINO's CPU plugin turns 64-bit integer constants into 32-bit ones.
    """
    outputs, channels, height, width = weight.shape
    rows = torch.from_numpy(np.array(weight)).permute(0, 2, 3, 1).reshape(-1, channels)
    words = pack_signs(rows).reshape(outputs, height * width, -1).transpose(1, 2)
    return words.contiguous().numpy().astype("<i8").view(np.uint8).reshape(-1)


def thresholds(grid: Grid) -> NDArray[np.float32]:
    """For each code but the first, the smallest fp32 number that rounds to it or above.

    Comparing with them gives exactly the codes of a division, a rounding to even and a cut.

    >>> thresholds(Grid(1.0, 0, 4)).tolist()
    [0.5000000596046448, 1.5, 2.500000238418579]
    """
    scale, found = np.float32(grid.scale), []

    def code(x: np.float32) -> float:
        return float(np.rint(x / scale)) + grid.zero_point

    for k in range(1, grid.levels):
        x = np.float32((k - grid.zero_point - 0.5) * grid.scale)
        while code(x) >= k:
            x = np.nextafter(x, np.float32(-np.inf))
        while code(x) < k:
            x = np.nextafter(x, np.float32(np.inf))
        found.append(x)
    return np.array(found, np.float32)
