"""A model with its policy as one ONNX model: one exported program gives the names, the integers and the graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import ExportedProgram

from netfit.errors import UnsupportedLayerError
from netfit.quant import FakeQuantize
from netfit.surgery import Quantization, plain
from netfit.workload import Op, Workload, from_program

from ._grid import Grid
from ._onnx import lower, open_program
from ._program import fold_batch_norm
from ._qdq import QuantSpec, mark, quantize

_VIEWS = ("identity", "dropout", "reshape", "flatten", "squeeze", "unsqueeze", "chunk", "split", "slice")
# What an uncalibrated network is timed with. Runtimes merge a ReLU or ReLU6 only into a grid that lies inside its
# range: zero point 0, and 255 steps below 6.
_PLACEHOLDER = Grid(1 / 64)


def to_onnx(model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> Any:
    """Export a model in evaluation mode, with batch norm folded, the batch dimension open, and its precisions.

    A model with `Quantize` applied becomes one with QuantizeLinear and DequantizeLinear pairs; before it is
    calibrated, its activation scales are placeholders: such a file is as fast, but computes nothing of use.

    Args:
        model: any module `torch.export` can export; untouched.
        example_inputs: one tensor for each input of the network, batch first.

    Returns:
        An ``onnx.ModelProto``. Values are named as the tensors of `netfit.workload.trace`, initializers as the
        parameters, nodes as their call sites: ``"layer1.0.conv1"``, ``"conv#1"`` for the second call of a place,
        ``"site/Reshape_0"`` for helpers of a site. Each layer carries the precision asked of it.

    Raises:
        UnsupportedLayerError: an operator has no ONNX form, or a tensor to quantize is gone from the graph.
        MissingExtraError: the extra ``export`` is not installed.
    """
    state = Quantization.of(model)
    program = open_program(plain(model), example_inputs)
    workload = from_program(program)
    steps = {} if state is None else _round_weights(program, workload, state)
    factors = fold_batch_norm(program)
    proto = lower(program, type(model).__name__)
    if state is None:
        return quantize(proto, QuantSpec())
    folded = {n: (s * factors.get(n, torch.ones(())).abs()).numpy().astype(np.float32) for n, s in steps.items()}
    return with_policy(proto, state, workload, folded)


def with_policy(proto: Any, state: Quantization, workload: Workload, steps: Mapping[str, NDArray[np.float32]]) -> Any:
    """Quantize a float ONNX model as a policy says.

    Args:
        proto: from `lower`.
        state: what the policy chose.
        workload: the network as it was before batch norm was folded.
        steps: weight scales by parameter name, after folding.
    """
    values = {v for n in proto.graph.node for v in n.output} | {i.name for i in proto.graph.input}
    tensors = _grids(state, workload, values)
    layers = {_node(op): steps[op.params["weight"].name] for op in workload if op.key in state.plan.layers}
    low = frozenset(_node(op) for op in workload if op.name in state.bf16 and op.params)
    spec = QuantSpec(tensors, layers, low, _bit_grids(state, workload))
    return mark(quantize(proto, spec), _asked(state, workload, tensors))


def _node(op: Op) -> str:
    """Name of the ONNX node of an operator."""
    return f"{op.name}#{op.call}" if op.call else op.name


def _asked(state: Quantization, workload: Workload, tensors: Mapping[str, Grid]) -> dict[str, str]:
    """Precision of every layer that is not fp32, and of joins of rounded tensors.

    A concatenation whose result is not rounded has nothing to do in integers: it only moves what it is given.
    """
    policy = state.asked()
    asked = {_node(op): policy[op.name] for op in workload if op.name in policy and op.params}
    joins = [op for op in workload if op.kind in ("add", "cat") and len(op.inputs) > 1]
    joins = [op for op in joins if op.kind == "add" or op.outputs[0].name in tensors]
    return asked | {_node(op): "int8" for op in joins if all(t.name in tensors for t in op.inputs)}


def _round_weights(program: ExportedProgram, workload: Workload, state: Quantization) -> dict[str, torch.Tensor]:
    """Put rounded weights into the program, before batch norm is folded; returns their steps by parameter name."""
    steps: dict[str, torch.Tensor] = {}
    for op in workload:
        if op.key in state.plan.layers:
            quantizer = state.weights[op.name]
        elif op.name in state.bits and op.params:
            quantizer = state.bits[op.name].weight
        else:
            continue
        name = op.params["weight"].name
        if name in steps:
            continue
        with torch.no_grad():
            w = quantizer(program.state_dict[name].detach())
        program.state_dict[name] = nn.Parameter(w, requires_grad=False)
        # Binary weights have no code for zero: their magnitude is the step.
        has_codes = hasattr(quantizer, "qparams")
        steps[name] = quantizer.qparams()[0].clone() if has_codes else w.abs().flatten(1).amax(1)
    return steps


def _grids(state: Quantization, workload: Workload, values: set[str]) -> dict[str, Grid]:
    """Grid of every tensor the plan rounds, by ONNX value name."""
    by_key = {op.key: op for op in workload}
    maker = {t.name: op for op in workload for t in op.outputs}
    grids = {}
    for key, head in state.plan.points.items():
        value = by_key[key].outputs[0].name if key in by_key else workload.inputs[key[1]].name
        # Views that change nothing are gone from the graph, parts have other names; what they read has the same scale.
        while value not in values and value in maker and maker[value].kind in _VIEWS:
            value = maker[value].inputs[0].name
        if value not in values:
            raise UnsupportedLayerError(f"the result of {key[0]} cannot be quantized: its ONNX graph does not have it")
        grids[value] = _grid(state.activations[head])
    return grids


def _grid(quantizer: FakeQuantize, placeholder: Grid = _PLACEHOLDER) -> Grid:
    if not quantizer.scale.numel():
        return placeholder
    scale, zero_point, least, most = quantizer.qparams()
    return Grid(float(scale), int(zero_point), most - least + 1)


def _bit_grids(state: Quantization, workload: Workload) -> dict[str, Grid]:
    """Grid of the input of every 1-bit layer, by ONNX node name."""
    chosen = {_node(op): state.bits[op.name].activation for op in workload if op.name in state.bits and op.params}
    return {name: _grid(q, Grid(1.0, 0, 2**q.format.bits)) for name, q in chosen.items()}
