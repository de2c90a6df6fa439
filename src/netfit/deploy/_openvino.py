"""OpenVINO behind `Session`, and its intermediate representation (IR) with layers that must stay float32."""

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from netfit.errors import ConfigError, TargetError, require

from ._bits import OPERATOR
from ._extension import add_operators
from ._sessions import Array, ExecutedLayer, Session, load_onnx, precision_marks, typical

_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
_LAYERS = {"Convolution", "GroupConvolution", "MatMul"}
_INNER = "/WithoutBiases"  # what OpenVINO appends to a layer whose bias it adds separately
_REFERENCE = "Reference"  # OpenVINO's word for an operator that brings its own code
_NOT_EXECUTED = {"Const", "Input", "Output", "Parameter", "Result"}


class OpenVINOSession(Session):
    """A model compiled for each input shape it meets: a fixed shape is faster than an open one."""

    runtime = "openvino"

    def __init__(self, source: Path | Any, threads: int, profile: bool) -> None:
        self._ov = require("openvino", "export")
        self.threads, self._profile = threads, profile
        self._core = self._ov.Core()
        self._model = read(source, self._core)
        bf16 = self._model.has_rt_info(["netfit", "precision"])
        self._config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "PERF_COUNT": profile,
        }
        self._compiled: dict[tuple[tuple[int, ...], ...], Any] = {}

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        shapes = [[int(d.get_length()) if d.is_static else 1 for d in i.partial_shape] for i in self._model.inputs]
        return [tuple(s) for s in shapes]

    def _compile(self, shapes: Sequence[tuple[int, ...]]) -> Any:
        key = tuple(shapes)
        if key not in self._compiled:
            try:
                self._compiled[key] = self._core.compile_model(self._shaped(shapes), "CPU", self._config)
            except RuntimeError as e:  # seen when int8 and bf16 layers are mixed
                reason = str(e).strip().splitlines()[-1][:200]
                raise TargetError(f"OpenVINO cannot compile the network for input {shapes}: {reason}") from e
        return self._compiled[key]

    def _shaped(self, shapes: Sequence[tuple[int, ...]]) -> Any:
        model = self._model.clone()
        model.reshape({i: list(s) for i, s in enumerate(shapes)})
        return model

    def run(self, x: Array | Sequence[Array]) -> list[Array]:
        arrays = self._inputs(x)
        result = self._compile([a.shape for a in arrays])(arrays)
        return [np.array(result[i]) for i in range(len(result))]

    def warm(self, x: Array | Sequence[Array] | None = None) -> Callable[[], Any]:
        return self._request(x).infer

    def _request(self, x: Array | Sequence[Array] | None) -> Any:
        arrays = self._inputs(x)
        request = self._compile([a.shape for a in arrays]).create_infer_request()
        for i, a in enumerate(arrays):
            request.set_input_tensor(i, self._ov.Tensor(a))  # a copy, owned by the request
        request.infer()
        request.infer()
        return request

    def layers(self) -> list[ExecutedLayer]:
        executed = self._executed(self._compile(self.input_shapes))
        layers = {_base(op) for op in self._model.get_ops() if op.get_type_name() in _LAYERS}
        if any(e.kind == "Subgraph" and layers & {e.name, *e.fused} for e in executed):
            # Neighbouring linear layers became one generated kernel, which has one precision in the report. Without
            # that merge each is listed with the precision it has inside the kernel: the choice is made earlier.
            model = self._shaped(self.input_shapes)
            executed = self._executed(
                self._core.compile_model(model, "CPU", self._config | {"SNIPPETS_MODE": "DISABLE"})
            )
        return executed

    def _executed(self, compiled: Any) -> list[ExecutedLayer]:
        known = {_base(op) for op in self._model.get_ops()}
        bits = self._bit_layers()
        executed = []
        for op in compiled.get_runtime_model().get_ordered_ops():
            info = op.get_rt_info()
            kind = str(info["layerType"].value)
            if kind not in _NOT_EXECUTED:
                name, *fused = _sites(op)
                raw = str(info["runtimePrecision"].value)
                if name in bits and kind == _REFERENCE:
                    kind, raw = OPERATOR, bits[name]
                kept = tuple(f for f in fused if f in known and not f.endswith(("/Quantize", "/Dequantize")))
                executed.append(ExecutedLayer(name, kind, _PRECISIONS.get(raw, raw), kept))
        return executed

    def _bit_layers(self) -> dict[str, str]:
        """Precision of each 1-bit layer: what its own operator is told to compute."""
        ops = [op for op in self._model.get_ops() if op.get_type_name() == OPERATOR]
        return {_base(op): f"w1a{op.get_attributes()['bits']}" for op in ops}

    def profile(self, x: Array | Sequence[Array] | None = None, runs: int = 128) -> list[tuple[str, float]]:
        if not self._profile:
            raise ConfigError("this session takes no layer times: open it with profile=True")
        request = self._request(x)
        ops = self._compile([a.shape for a in self._inputs(x)]).get_runtime_model().get_ordered_ops()
        sites = {op.get_friendly_name(): _sites(op)[0] for op in ops}
        times: dict[str, list[float]] = {}
        for _ in range(runs):
            request.infer()
            for p in request.profiling_info:
                if p.status == p.Status.EXECUTED:
                    times.setdefault(p.node_name, []).append(p.real_time.total_seconds())
        return [(sites.get(n, n), typical(t)) for n, t in times.items()]


def _sites(op: Any) -> list[str]:
    """Call sites a kernel computes: the layer first, then what was fused into it."""
    original = str(op.get_rt_info()["originalLayersNames"].value).split(",")
    return list(dict.fromkeys(n.split(_INNER)[0] for n in original if n)) or [op.get_friendly_name()]


def _base(op: Any) -> str:
    """Name of the ONNX node an operator came from; a layer with a bias became two operators."""
    return str(op.get_friendly_name()).split(_INNER)[0]


def read(source: Path | Any, core: Any, *, mark: bool = True) -> Any:
    """OpenVINO model of a file or an ONNX model, its layers named as in ONNX.

    With `mark`, layers that the file asks to stay float32 beside bfloat16 ones are marked so.
    """
    if isinstance(source, Path) and source.suffix == ".xml":
        add_operators(core, source)
        return _parsed(core, source)
    proto = load_onnx(source)
    add_operators(core, proto)
    model = _parsed(core, proto.SerializeToString())
    # OpenVINO names a layer that makes a network output after the output.
    made_by = {v: n.name for n in proto.graph.node for v in n.output}
    outputs = {v.name: made_by.get(v.name, v.name) for v in proto.graph.output}
    for op in model.get_ops():
        if op.get_friendly_name() in outputs and op.get_type_name() not in ("Result", "Parameter"):
            op.set_friendly_name(outputs[op.get_friendly_name()])
    low = {name for name, precision in precision_marks(proto).items() if precision == "bf16"}
    return core.read_model(*write_ir(model, low)) if low and mark else model


def _parsed(core: Any, source: Path | bytes) -> Any:
    try:
        return core.read_model(source)
    except RuntimeError as e:
        place = source if isinstance(source, Path) else "an ONNX model"
        raise ConfigError(f"OpenVINO cannot read {place}: {str(e).strip().splitlines()[-1][:300]}") from e


def write_ir(model: Any, bf16: Set[str] = frozenset()) -> tuple[bytes, bytes]:
    """The ``.xml`` and ``.bin`` of a model; when layers are bfloat16, all others are marked to stay float32."""
    ov = require("openvino", "export")
    if bf16:
        model.set_rt_info("bf16", ["netfit", "precision"])
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        ov.serialize(model, str(xml), str(weights))
        text, data = xml.read_bytes(), weights.read_bytes()
    return (_keep_float32(text, bf16) if bf16 else text), data


def _keep_float32(text: bytes, bf16: Set[str]) -> bytes:
    root = ET.fromstring(text)
    for layer in root.iter("layer"):
        name = layer.get("name", "").split(_INNER)[0]
        if name in bf16 or layer.get("type") in ("Const", "Parameter", "Result"):
            continue
        info = layer.find("rt_info")
        if info is None:
            info = ET.Element("rt_info")
            layer.insert(1 if layer.find("data") is not None else 0, info)
        # The attribute through which OpenVINO keeps a layer out of reduced floating-point precision. Setting it from
        # Python (get_rt_info) has no effect: it is read while the XML is parsed.
        ET.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)
