"""Writing the file of a model with its policy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netfit.errors import ConfigError, did_you_mean, require
from netfit.io import write_bytes
from netfit.surgery import Quantization

from ._bits import refuse_bit_layers
from ._convert import to_onnx
from ._openvino import read, write_ir
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
        UnsupportedLayerError: the network cannot be exported, a tensor to quantize is gone from the file's graph, or
            there is no kernel for a 1-bit layer.
        ArtifactError: the file cannot be written.
    """
    path = Path(path)
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime {runtime!r} is unknown: {did_you_mean(runtime, RUNTIMES)}")
    endings = (".onnx", ".xml") if runtime == "openvino" else (".onnx",)
    if path.suffix not in endings:
        raise ConfigError(f"{path} must end in {' or '.join(endings)} for {runtime}")
    state = Quantization.of(model)
    if state is not None and not all(q.scale.numel() for q in state.observers()):
        raise ConfigError(f"{type(model).__name__} is not calibrated: call netfit.surgery.calibrate with real inputs")
    proto = to_onnx(model, example_inputs)
    if runtime == "onnxruntime":
        refuse_bit_layers(proto)
    asked = precision_marks(proto)
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
