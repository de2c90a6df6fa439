"""Quantization written into an ONNX graph as QuantizeLinear/DequantizeLinear pairs.

Both runtimes turn these pairs into integer kernels, and only where they stand exactly so: one pair for each tensor,
shared by all its readers; integer weights per output channel; an int32 bias at the product of the two scales. 1-bit
layers are no pairs: they become operators of their own, which round what they read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, did_you_mean, require

from ._bits import DOMAIN, bit_conv, bit_precision
from ._grid import Grid
from ._onnx import LAYERS

# These only move or select values, so their result lies on the grid of what they read.
_SAME_GRID = (
    "MaxPool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Slice",
    "Split",
    "Gather",
)


@dataclass(frozen=True)
class QuantSpec:
    """What to quantize, in ONNX names.

    Attributes:
        tensors: value name -> uint8 grid. Every reader of the value sees it quantized.
        layers: node name -> weight scales, float32 (out_channels,). Its input must be in `tensors`, or be made from
            one by operators that only move values (pooling by maximum, reshapes).
        bf16: nodes to compute in bfloat16 where the runtime can; all others stay as they are.
        bits: node name -> grid of 2 or 4 levels that its input is rounded to, for it alone. Its weight becomes sign
            times mean magnitude.
    """

    tensors: Mapping[str, Grid] = field(default_factory=dict)
    layers: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    bf16: frozenset[str] = frozenset()
    bits: Mapping[str, Grid] = field(default_factory=dict)


def quantize(proto: Any, spec: QuantSpec) -> Any:
    """Insert the pairs into a copy of an ONNX model, and write each layer's precision next to it.

    The rounding is that of the runtimes: weights symmetric in [-127, 127], ties to even.

    Args:
        proto: from `to_onnx`, not yet quantized.
        spec: what to quantize.

    Raises:
        ConfigError: a name is not in the model, or a layer reads a tensor that is not quantized.
        UnsupportedLayerError: a 1-bit layer is no plain two-dimensional convolution.
    """
    onnx = require("onnx", "export")
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = _Graph(result.graph, spec)
    graph.check()
    graph.bit_layers()
    nodes = [n for i in result.graph.input for n in graph.pair(i.name)]
    for node in list(result.graph.node):
        own = list(graph.layer(node))
        node.input[:] = [f"{v}/dq" if v in graph.tensors else v for v in node.input]
        nodes += [*own, node, *(n for v in node.output for n in graph.pair(v))]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    used = {v for n in result.graph.node for v in n.input}
    kept = [t for t in result.graph.initializer if t.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    if spec.bits:
        result.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    bits = {name: bit_precision(grid) for name, grid in spec.bits.items()}
    return mark(result, dict.fromkeys(spec.layers, "int8") | dict.fromkeys(spec.bf16, "bf16") | bits)


def mark(proto: Any, asked: Mapping[str, str]) -> Any:
    """Write the asked precision next to each layer: the file itself says what a runtime has to execute."""
    for node in proto.graph.node:
        if node.op_type in LAYERS or node.name in asked:
            del node.metadata_props[:]
            node.metadata_props.add(key="netfit.precision", value=asked.get(node.name, "fp32"))
    return proto


class _Graph:
    """A graph being rewritten: its constants by name, its tensors' grids, and the constants added so far."""

    def __init__(self, graph: Any, spec: QuantSpec) -> None:
        self.graph, self.spec = graph, spec
        self.made_by = {v: n for n in graph.node for v in n.output}
        self.constants = {t.name: t for t in graph.initializer}
        self.tensors = dict(spec.tensors)
        for node in graph.node:
            if node.name in spec.layers:
                self.grid(node.input[0], node.name)

    def check(self) -> None:
        names = {n.name for n in self.graph.node if n.op_type in LAYERS}
        values = {i.name for i in self.graph.input} | set(self.made_by)
        for what, asked, known in (
            ("layer", {*self.spec.layers, *self.spec.bf16, *self.spec.bits}, names),
            ("tensor", set(self.spec.tensors), values),
        ):
            for name in sorted(asked - known):
                raise ConfigError(f"no {what} {name!r} in the network: {did_you_mean(name, known)}")

    def grid(self, value: str, reader: str) -> Grid:
        """Grid of a value, inherited through operators that keep it; they then get a pair of their own."""
        if value not in self.tensors:
            node = self.made_by.get(value)
            sources = [] if node is None else [v for v in node.input if v and v not in self.constants]
            keeps = node is not None and (node.op_type in _SAME_GRID or node.op_type == "Concat")
            grids = {self.grid(v, reader) for v in sources} if keeps else set()
            if len(grids) != 1:
                raise ConfigError(f"{reader} cannot be int8: its input {value!r} has {len(grids)} grids instead of 1")
            self.tensors[value] = grids.pop()
        return self.tensors[value]

    def constant(self, name: str, value: NDArray[Any]) -> str:
        onnx = require("onnx", "export")
        if name not in self.constants:
            self.constants[name] = onnx.numpy_helper.from_array(value, name)
            self.graph.initializer.append(self.constants[name])
        return name

    def pair(self, value: str) -> Iterator[Any]:
        """Quantize and dequantize nodes behind a value that has a grid."""
        if value not in self.tensors:
            return
        make = require("onnx", "export").helper.make_node
        grid = self.tensors[value]
        scale = self.constant(f"{value}/scale", np.float32(grid.scale))  # type: ignore[arg-type]
        zero = self.constant(f"{value}/zero_point", np.uint8(grid.zero_point))  # type: ignore[arg-type]
        source = value
        if grid.levels < 256:  # the runtimes' codes are uint8: fewer levels are a cut before them
            low, high = -grid.zero_point * grid.scale, (grid.levels - 1 - grid.zero_point) * grid.scale
            least = self.constant(f"{value}/least", np.float32(low))  # type: ignore[arg-type]
            most = self.constant(f"{value}/most", np.float32(high))  # type: ignore[arg-type]
            source = f"{value}/cut"
            yield make("Clip", [value, least, most], [source], f"{value}/Clip")
        yield make("QuantizeLinear", [source, scale, zero], [f"{value}/q"], f"{value}/Quantize")
        yield make("DequantizeLinear", [f"{value}/q", scale, zero], [f"{value}/dq"], f"{value}/Dequantize")

    def layer(self, node: Any) -> Iterator[Any]:
        """Integer weight and bias of a layer, with the nodes that dequantize them; they replace its own."""
        if node.name not in self.spec.layers:
            return
        onnx = require("onnx", "export")
        weight = node.input[1]
        w = onnx.numpy_helper.to_array(self.constants[weight])
        axis = 1 if weight.endswith(".T") else 0
        bias = self._bias(node)
        input_scale = np.float32(self.grid(node.input[0], node.name).scale)
        b = np.zeros(0, np.float32) if bias is None else onnx.numpy_helper.to_array(self.constants[bias])
        scales = _safe_scales(self.spec.layers[node.name], b, input_scale)
        wide = scales.reshape([-1 if i == axis else 1 for i in range(w.ndim)])
        q = np.clip(np.rint(w / wide), -127, 127).astype(np.int8)
        node.input[1] = f"{node.name}/weight"
        yield self._dequantize(node.input[1], q, scales, axis)
        if bias is not None:
            product = (input_scale * scales).astype(np.float32)
            node.input[2] = f"{node.name}/bias"
            yield self._dequantize(node.input[2], np.rint(b / product).astype(np.int32), product, 0)

    def bit_layers(self) -> None:
        """Put the 1-bit operators in the place of their layers, and of a ReLU that alone reads one's result."""
        array = require("onnx", "export").numpy_helper.to_array
        for node in [n for n in self.graph.node if n.name in self.spec.bits]:
            bias, relu = self._bias(node), self._relu(node.output[0])
            made, tensors = bit_conv(
                node, array(self.constants[node.input[1]]), None if bias is None else array(self.constants[bias]),
                self.spec.bits[node.name], relu,
            )  # fmt: skip
            for name, value in tensors.items():
                self.constant(name, value)
            node.CopyFrom(made)
            if relu is not None:
                self.graph.node.remove(relu)

    def _relu(self, value: str) -> Any:
        readers = [n for n in self.graph.node if value in n.input]
        alone = len(readers) == 1 and value not in self.tensors and all(o.name != value for o in self.graph.output)
        return readers[0] if alone and readers[0].op_type == "Relu" else None

    def _bias(self, node: Any) -> str | None:
        return str(node.input[2]) if node.op_type != "MatMul" and len(node.input) > 2 and node.input[2] else None

    def _dequantize(self, name: str, q: NDArray[Any], scales: NDArray[np.float32], axis: int) -> Any:
        make = require("onnx", "export").helper.make_node
        inputs = [self.constant(f"{name}/q", q), self.constant(f"{name}/scale", scales)]
        inputs.append(self.constant(f"{name}/zero_point", np.zeros(len(scales), q.dtype)))
        return make("DequantizeLinear", inputs, [name], f"{name}/Dequantize", axis=axis)


def _safe_scales(
    scales: NDArray[np.float32], bias: NDArray[np.float32], input_scale: np.float32
) -> NDArray[np.float32]:
    """Raise the scale of a nearly dead channel until its bias fits into int32 at ``input_scale * scale``."""
    scales = np.asarray(scales, np.float32)
    least = np.abs(bias) / (input_scale * np.float32(2**30)) if bias.size else np.zeros_like(scales)
    return np.maximum(scales, np.maximum(least, np.finfo(np.float32).tiny * 2**24)).astype(np.float32)
