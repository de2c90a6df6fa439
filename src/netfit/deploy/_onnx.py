"""An exported program as ONNX, named so that every tensor and layer can be found again.

Values are called like the nodes of the exported graph (the tensor names of `netfit.workload`), initializers like the
parameters, and nodes like the call site they belong to. Runtimes keep node names through their own rewriting, which
is what makes the executed precision of a layer readable afterwards.
"""

import operator
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from netfit.env import quiet
from netfit.errors import UnsupportedLayerError, require
from netfit.workload import export_program

# The operator that does the work of a call site; the others of the same site are its helpers.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
_FX_NODE = re.compile(r"%(\w+) :")


def lower(program: torch.export.ExportedProgram, name: str) -> Any:
    """ONNX form of a program from `open_program`, batch norm folded or not; `name` is what an error calls it."""
    require("onnxscript", "export")
    for node in program.graph.nodes:
        # What decomposes an operator of several results keeps no name for the first of them.
        first = next((u.name for u in node.users if u.target is operator.getitem and u.args[1] == 0), node.name)
        node.meta["custom"] = {"value": first, **(node.meta.get("custom") or {})}
    with quiet("torch.onnx"):
        try:
            exported = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
        except torch.onnx.OnnxExporterError as e:
            cause = str(e.__cause__ or e).strip().splitlines()[0]
            raise UnsupportedLayerError(f"{name} has no ONNX form: {cause[:300]}") from e
        assert exported is not None and exported.exported_program is not None
        _optimize(exported)
    origin = {n.name: n.meta.get("custom") or {} for n in exported.exported_program.graph.nodes}
    proto = exported.model_proto
    _fold_transposes(proto.graph)
    _name_values(proto.graph, origin)
    _name_nodes(proto.graph, origin)
    _name_batch(proto.graph)
    return proto


def open_program(model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> torch.export.ExportedProgram:
    """Export with the batch dimension open, or with that of the example where the network does not allow it."""
    # torch.export takes a size of one for a constant, so an open batch dimension needs an example of two.
    pair = [x.repeat(2, *[1] * (x.ndim - 1)) if len(x) == 1 else x for x in example_inputs]
    try:
        return export_program(model, *pair, dynamic_batch=True)
    except UnsupportedLayerError:  # a network that computes with its batch size still has a fixed-batch form
        return export_program(model, *example_inputs)


def _optimize(exported: torch.onnx.ONNXProgram) -> None:
    """Simplify the graph without looking at parameter values.

    The optimizer merges equal initializers and drops zero biases. Both are wrong for a file whose parameters are
    replaced later, so it sees the parameters as graph inputs.
    """
    graph = exported.model.graph
    values = {name: value.const_value for name, value in graph.initializers.items()}
    for name in values:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    exported.optimize()
    for value in [v for v in graph.inputs if v.name in values]:
        graph.inputs.remove(value)
        value.const_value = values[str(value.name)]
        if value.uses():
            graph.register_initializer(value)


def _fold_transposes(graph: Any) -> None:
    """Store a weight that is only read transposed that way, as ``weight.T`` (matrix products of three axes)."""
    from onnx import numpy_helper

    tensors = {t.name: t for t in graph.initializer}
    readers: Counter[str] = Counter(v for n in graph.node for v in n.input)
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in tensors]:
        name = node.input[0]
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [1, 0])
        if perm != [1, 0] or readers[name] > 1:
            continue
        turned = np.ascontiguousarray(numpy_helper.to_array(tensors[name]).T)
        tensors[name].CopyFrom(numpy_helper.from_array(turned, f"{name}.T"))
        for reader in graph.node:
            reader.input[:] = [f"{name}.T" if v == node.output[0] else v for v in reader.input]
        graph.node.remove(node)


def _name_values(graph: Any, origin: dict[str, dict[str, Any]]) -> None:
    """Undo the names of the decomposition: the last tensor made for a graph node is the one that bears its name."""
    last = {custom["value"]: name for name, custom in origin.items() if "value" in custom}
    names = {lowered: name for name, lowered in last.items()}
    taken = set(names.values())
    kept = {v for n in graph.node for v in n.output} - names.keys()
    names |= {v: f"{v}/inner" for v in kept & taken}
    for node in graph.node:
        node.input[:] = [names.get(v, v) for v in node.input]
        node.output[:] = [names.get(v, v) for v in node.output]
    for value in [*graph.value_info, *graph.output]:
        value.name = names.get(value.name, value.name)


def _name_nodes(graph: Any, origin: dict[str, dict[str, Any]]) -> None:
    members: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for node in graph.node:
        props = {p.key: p.value for p in node.metadata_props}
        lowered = _FX_NODE.match(props.get("pkg.torch.onnx.fx_node", ""))
        site = origin.get(lowered[1], {}).get("netfit_site") if lowered else None
        # The exporter's own notes hold stack traces with the paths of the exporting machine.
        del node.metadata_props[:]
        if site is not None:
            members[site[0], site[1]].append(node)
    for (name, call), nodes in members.items():
        own = f"{name}#{call}" if call else name
        main = next((n for n in nodes if n.op_type in LAYERS), nodes[-1])
        for i, node in enumerate(nodes):
            node.name = own if node is main else f"{own}/{node.op_type}_{i}"


def _name_batch(graph: Any) -> None:
    symbols = {d.dim_param for i in graph.input for d in i.type.tensor_type.shape.dim[:1] if d.HasField("dim_param")}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        del value.metadata_props[:]
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols and dim.dim_param:
                dim.dim_param = "batch"
    for initializer in graph.initializer:
        del initializer.metadata_props[:]
