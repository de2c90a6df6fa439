"""The ONNX form of a pruned network, made from that of the whole one without a new export.

A search measures hundreds of widths of one network. Their graphs differ only in the sizes of initializers and in the
few constants that depend on them, so milliseconds replace the seconds of an export.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import require

Array = NDArray[Any]
Shape = tuple[int, ...]
_BATCH = 2  # a concrete batch for the check, told apart from sizes of one


def reslice(proto: Any, tensors: Mapping[str, Array]) -> Any | None:
    """Replace the parameters of an unquantized ONNX model by smaller ones.

    A bias that batch norm folding made, and that the pruned network therefore does not name, keeps its first values:
    enough for timing, which does not depend on them. For a file to deploy, use `export`.

    Args:
        proto: from `to_onnx`, not quantized.
        tensors: state_dict of the pruned network as arrays; entries the file does not have are ignored.

    Returns:
        A new ``onnx.ModelProto``, or None when the graph depends on the sizes in a way this does not know.
    """
    onnx = require("onnx", "export")
    old = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    arrays = _resized(proto, tensors)
    graph = onnx.helper.make_graph(
        proto.graph.node,
        proto.graph.name,
        proto.graph.input,
        proto.graph.output,
        [
            onnx.numpy_helper.from_array(arrays[t.name], t.name) if t.name in arrays else t
            for t in proto.graph.initializer
        ],
    )
    result = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    before = _shapes(proto)
    fitted = all(_fit(node, result.graph, old, before) for node in result.graph.node)
    return result if fitted and _consistent(result) else None


def _resized(proto: Any, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """New value of every initializer that changes."""
    onnx = require("onnx", "export")
    found: dict[str, Array] = {}
    for t in proto.graph.initializer:
        given = tensors.get(t.name.removesuffix(".T"))
        if given is not None:
            found[t.name] = np.ascontiguousarray(given.T if t.name.endswith(".T") else given).astype(np.float32)
    stored = {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or node.input[2] in found:
            continue
        weight, bias = node.input[1], node.input[2]
        if weight in found and bias in stored:
            found[bias] = onnx.numpy_helper.to_array(stored[bias])[: len(found[weight])].copy()
    return found


def _fit(node: Any, graph: Any, old: Mapping[str, Shape], before: Mapping[str, Shape]) -> bool:
    """Adapt what a node says about sizes; False when that cannot be derived."""
    onnx = require("onnx", "export")
    if node.op_type == "Conv":
        group = next((a for a in node.attribute if a.name == "group"), None)
        if group is not None and group.i > 1:
            was = old[node.input[1]][0]
            now = next(t.dims[0] for t in graph.initializer if t.name == node.input[1])
            if group.i * now % was:
                return False
            group.i = group.i * now // was  # whole groups leave: their number follows the output channels
    if node.op_type == "Reshape":
        target = next((t for t in graph.initializer if t.name == node.input[1]), None)
        shape, source = None if target is None else onnx.numpy_helper.to_array(target), before.get(node.input[0])
        flat = shape is not None and source is not None and len(shape) == 2 and shape[1] == np.prod(source[1:])
        if flat:
            name = f"{node.input[1]}/flat"
            if all(t.name != name for t in graph.initializer):
                graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, -1]), name))
            node.input[1] = name
            del node.attribute[:]  # the exporter writes allowzero, with which 0 no longer means "as it is"
    return True


def _shapes(proto: Any) -> dict[str, Shape]:
    """Shapes of all values for a batch of two, without carrying the weights through shape inference.

    Raises:
        onnx.shape_inference.InferenceError: the sizes contradict each other.
    """
    onnx = require("onnx", "export")
    bare = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    bare.graph.name = "shapes"
    bare.graph.node.extend(proto.graph.node)
    for i in proto.graph.input:
        bare.graph.input.add().CopyFrom(i)
        for d in bare.graph.input[-1].type.tensor_type.shape.dim[:1]:
            if d.dim_param:
                d.dim_value = _BATCH
    for o in proto.graph.output:
        bare.graph.output.append(onnx.helper.make_tensor_value_info(o.name, o.type.tensor_type.elem_type, None))
    for t in proto.graph.initializer:
        if t.data_type == onnx.TensorProto.FLOAT and t.dims:
            bare.graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims))
        else:
            bare.graph.initializer.append(t)
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
    return {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def _consistent(proto: Any) -> bool:
    """Strict shape inference, and what it leaves unchecked: that layers read as many channels as their weights have."""
    onnx = require("onnx", "export")
    try:
        shapes = _shapes(proto)
    except onnx.shape_inference.InferenceError:
        return False
    for node in proto.graph.node:
        sizes = [shapes.get(v, ()) for v in node.input[:2]]
        if not all(all(s) for s in sizes):
            return False  # a size of zero is one that inference could not tell
        if node.op_type == "Conv":
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            fits = sizes[0][1] == sizes[1][1] * group
        elif node.op_type == "Gemm":
            fits = sizes[0][-1] == sizes[1][1]
        elif node.op_type == "BatchNormalization":
            fits = sizes[0][1] == sizes[1][0]
        else:
            fits = True
        if not fits:
            return False
    return all(shapes[o.name][:1] == (_BATCH,) for o in proto.graph.output)
