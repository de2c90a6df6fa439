"""From a model with its policy to a file: one exported program gives the names, the integers and the graph."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from netfit.errors import ConfigError, UnsupportedLayerError, did_you_mean, require
from netfit.io import write_bytes
from netfit.surgery import Quantization, plain, quantization
from netfit.surgery._quantize import scales, weight_quantizer
from netfit.workload import Workload, from_program

from ._onnx import lower, open_program
from ._openvino import read, write_ir
from ._program import fold_batch_norm
from ._qdq import Grid, QuantSpec, quantize
from ._sessions import RUNTIMES, precision_marks


@dataclass(frozen=True)
class Exported:
    """A file and what it asks of the runtime.

    Attributes:
        path: the ``.onnx`` file, or the ``.xml`` file with its ``.bin`` beside it.
        runtime: what it was written for.
        asked: call site -> precision, for every layer and for every join the policy quantizes.
        report: facts about the file: its bytes, opset, and the number of layers at each precision.
    """

    path: Path
    runtime: str
    asked: dict[str, str]
    report: dict[str, Any] = field(default_factory=dict)


def export(
    model: nn.Module, example_inputs: Sequence[torch.Tensor], path: str | Path, *, runtime: str = "openvino"
) -> Exported:
    """Write the file that computes what a model computes, at the precisions of its policy.

    Args:
        model: any module; one with `Quantize` applied must be calibrated.
        example_inputs: one tensor for each input of the network, batch first.
        path: ``.onnx``, or ``.xml`` for OpenVINO's own format.
        runtime: ``"openvino"`` or ``"onnxruntime"``.

    Raises:
        ConfigError: unknown runtime or ending, or a quantizer that has seen no data.
        UnsupportedLayerError: the network cannot be exported, or a tensor to quantize is gone from the file's graph.
        ArtifactError: the file cannot be written.
    """
    path = Path(path)
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime {runtime!r} is unknown: {did_you_mean(runtime, RUNTIMES)}")
    endings = (".onnx", ".xml") if runtime == "openvino" else (".onnx",)
    if path.suffix not in endings:
        raise ConfigError(f"{path} must end in {' or '.join(endings)} for {runtime}")
    proto, asked = quantized_onnx(model, example_inputs)
    if path.suffix == ".xml":
        low = {name for name, precision in precision_marks(proto).items() if precision == "bf16"}
        ov = require("openvino", "export")
        text, weights = write_ir(read(proto, ov.Core(), mark=False), low)
        write_bytes(path.with_suffix(".bin"), weights)
        write_bytes(path, text)
        size = len(text) + len(weights)
    else:
        data = proto.SerializeToString()
        write_bytes(path, data)
        size = len(data)
    counts = {p: list(asked.values()).count(p) for p in sorted(set(asked.values()))}
    report = {"bytes": size, "opset": proto.opset_import[0].version, "layers": counts}
    return Exported(path, runtime, asked, report)


def quantized_onnx(model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> tuple[Any, dict[str, str]]:
    """ONNX model of a network and its policy, and the precision asked of each layer and quantized join."""
    state = quantization(model)
    program = open_program(plain(model), example_inputs)
    workload = from_program(program)
    rounded = _round_weights(program, workload, model, state) if state is not None else {}
    factors = fold_batch_norm(program)
    proto = lower(program, type(model).__name__)
    if state is None:
        proto = quantize(proto, QuantSpec())
        return proto, precision_marks(proto)
    values = {v for n in proto.graph.node for v in n.output} | {i.name for i in proto.graph.input}
    tensors = _grids(model, workload, values)
    layers = {}
    for op in workload:
        if op.key in state.plan.layers:
            name = op.params["weight"].name
            factor = factors.get(name, torch.ones(()))
            layers[_node(op.key)] = (rounded[name] * factor.abs()).numpy().astype(np.float32)
    proto = quantize(proto, QuantSpec(tensors, layers, frozenset(map(_node, state.bf16))))
    marks = precision_marks(proto)
    policy = state.asked()
    asked = {name: policy.get(name.partition("#")[0], precision) for name, precision in marks.items()}
    for op in workload:
        if op.kind in ("add", "cat") and op.inputs and all(t.name in tensors for t in op.inputs):
            asked[_node(op.key)] = "int8"
    return proto, asked


def _node(key: tuple[str, int]) -> str:
    """Name of the ONNX node of a call site, as `to_onnx` gives it."""
    return f"{key[0]}#{key[1]}" if key[1] else key[0]


def _round_weights(
    program: ExportedProgram, workload: Workload, model: nn.Module, state: Quantization
) -> dict[str, torch.Tensor]:
    """Put rounded weights into the program, before batch norm is folded; returns the scales by parameter name."""
    found: dict[str, torch.Tensor] = {}
    for op in workload:
        if op.key not in state.plan.layers or op.params["weight"].name in found:
            continue
        name = op.params["weight"].name
        quantizer = weight_quantizer(model, op.name)
        with torch.no_grad():
            w = quantizer(program.state_dict[name].detach())
        program.state_dict[name] = nn.Parameter(w, requires_grad=False)
        # Binary weights have no code for zero: their magnitude is the step.
        has_codes = hasattr(quantizer, "qparams")
        found[name] = quantizer.qparams()[0].clone() if has_codes else w.abs().flatten(1).amax(1)
    return found


def _grids(model: nn.Module, workload: Workload, values: set[str]) -> dict[str, Grid]:
    """Grid of every tensor the plan rounds, by ONNX value name."""
    made_by = {op.key: op for op in workload}
    grids = {}
    for key, quantizer in scales(model).items():
        if key not in made_by:
            value = workload.inputs[key[1]].name
        else:
            op = made_by[key]
            value = op.outputs[0].name
            # Views that change nothing are gone from the graph; what they read has the same scale.
            while value not in values and op.inputs and op.kind in ("identity", "dropout", "reshape", "flatten"):
                value = op.inputs[0].name
                op = next((o for o in workload if value in {t.name for t in o.outputs}), op)
        if value not in values:
            raise UnsupportedLayerError(f"the result of {key[0]} cannot be quantized: the ONNX graph does not have it")
        scale, zero_point, low, high = quantizer.qparams()
        grids[value] = Grid(float(scale), int(zero_point), high - low + 1)
    return grids
