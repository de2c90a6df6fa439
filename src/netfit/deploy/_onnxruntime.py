"""ONNX Runtime behind `Session`."""

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from netfit.errors import ConfigError, require

from ._bits import refuse_bit_layers
from ._onnx import LAYERS
from ._sessions import Array, ExecutedLayer, Session, load_onnx, typical

_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh")
_CONVERTERS = ("QuantizeLinear", "DequantizeLinear")
_INT8 = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantize")
# What ONNX Runtime appends to the name of a node it rewrites.
_SUFFIX = re.compile(r"(_token_\d+|_nchwc|_nhwc|_kernel_time)+$")


class ORTSession(Session):
    """A session of one fixed set of threads that sleep while they wait."""

    runtime = "onnxruntime"

    def __init__(self, source: Path | Any, threads: int, profile: bool) -> None:
        self._ort = require("onnxruntime", "export")
        self.threads, self._profile = threads, profile
        self._proto = load_onnx(source)
        refuse_bit_layers(self._proto)
        self._session = self._open()

    def _open(self, **options: Any) -> Any:
        chosen = self._ort.SessionOptions()
        chosen.intra_op_num_threads = self.threads
        chosen.inter_op_num_threads = 1
        chosen.log_severity_level = 3
        for pool in ("intra_op", "inter_op"):
            chosen.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
        for name, value in options.items():
            setattr(chosen, name, value)
        try:
            return self._ort.InferenceSession(
                self._proto.SerializeToString(),
                chosen,
                providers=["CPUExecutionProvider"],
                # It would turn a float32 layer between two int8 layers into an int8 one, unasked.
                disabled_optimizers=["WeightBiasQuantization"],
            )
        except Exception as e:  # its error classes are built at run time
            raise ConfigError(f"ONNX Runtime cannot load the network: {str(e).strip()[:300]}") from e

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        return [tuple(d if isinstance(d, int) else 1 for d in i.shape) for i in self._session.get_inputs()]

    def _feed(self, x: Array | Sequence[Array] | None) -> dict[str, Array]:
        return dict(zip([i.name for i in self._session.get_inputs()], self._inputs(x), strict=True))

    def run(self, x: Array | Sequence[Array]) -> list[Array]:
        return list(self._session.run(None, self._feed(x)))

    def warm(self, x: Array | Sequence[Array] | None = None) -> Callable[[], Any]:
        binding = self._session.io_binding()
        for name, value in self._feed(x).items():
            binding.bind_ortvalue_input(name, self._ort.OrtValue.ortvalue_from_numpy(value))
        for output in self._session.get_outputs():
            binding.bind_output(output.name)
        session = self._session

        def call() -> None:
            session.run_with_iobinding(binding)

        call()
        call()
        return call

    def layers(self) -> list[ExecutedLayer]:
        onnx = require("onnx", "export")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            self._open(optimized_model_filepath=str(path))
            nodes = onnx.load(path).graph.node
        sites, integer = self._sites(), set[str]()
        executed = []
        for node in nodes:
            # Pooling and data movement compute in the type they are given; everything else says so in its name.
            moved = node.op_type not in _CONVERTERS and bool(node.input) and node.input[0] in integer
            int8 = moved or node.op_type.startswith(_INT8)
            if (int8 and not _returns_float(node)) or node.op_type == "QuantizeLinear":
                integer.update(node.output)
            executed.append(ExecutedLayer(sites.of(node), node.op_type, "int8" if int8 else "fp32"))
        return executed

    def profile(self, x: Array | Sequence[Array] | None = None, runs: int = 128) -> list[tuple[str, float]]:
        if not self._profile:
            raise ConfigError("this session takes no layer times: open it with profile=True")
        feed, sites = self._feed(x), self._sites()
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(enable_profiling=True, profile_file_prefix=str(Path(folder) / "p"))
            for _ in range(runs + 2):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text())
        times: dict[str, list[float]] = {}
        for e in events:
            if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
                times.setdefault(e["name"], []).append(e["dur"] * 1e-6)
        return [(sites.find(n), typical(t[2:])) for n, t in times.items()]

    def _sites(self) -> "_Sites":
        """Nodes by name, and by the value they make: ONNX Runtime calls blocked convolutions after their output."""
        made_by = {v: n for n in self._proto.graph.node for v in n.output}
        values = {}
        for value, node in made_by.items():
            layer = node
            while layer.op_type in _ACTIVATIONS and layer.input[0] in made_by:
                layer = made_by[layer.input[0]]
            values[value] = layer.name if layer.op_type in LAYERS else node.name
        return _Sites({n.name for n in self._proto.graph.node}, values)


class _Sites(NamedTuple):
    nodes: set[str]
    values: dict[str, str]

    def of(self, node: Any) -> str:
        """Call site of a node: by its name, or by what it makes where several became one under a new name."""
        found = self.find(node.name)
        return found if found in self.nodes else self.values.get(node.output[0], found)

    def find(self, name: str) -> str:
        """Call site behind a runtime's node name. The whole name is tried first: a site may end like a suffix."""
        if name in self.nodes:
            return name
        short = _SUFFIX.sub("", name).removeprefix("fused ")
        if "_nchwc" in name.removeprefix(short) and short in self.values:
            return self.values[short]
        return short if short in self.nodes else self.values.get(short, short)


def _returns_float(node: Any) -> bool:
    """Quantized products without an output scale (the ninth input) return float32."""
    return (node.op_type == "QGemm" and len(node.input) < 8) or node.op_type.endswith("ToFloat")
