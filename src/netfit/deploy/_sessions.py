"""One way to run a file in a runtime, to bind it for timing, and to ask what the runtime really executes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, did_you_mean, require

Array = NDArray[Any]
Runtime = Literal["openvino", "onnxruntime"]
RUNTIMES = ("openvino", "onnxruntime")


def typical(seconds: Sequence[float]) -> float:
    """Mean of the fastest three quarters: runtimes count whole microseconds, a quantile of a fast layer is 0 or 1."""
    fastest = sorted(seconds)[: max(1, 3 * len(seconds) // 4)]
    return sum(fastest) / len(fastest)


@dataclass(frozen=True)
class ExecutedLayer:
    """One kernel that a runtime executes.

    Attributes:
        name: call site it computes, or the runtime's own name for what it added (a layout change, a cast).
        kind: the runtime's word for it, such as ``"Convolution"`` or ``"QLinearConv"``.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"int8"``, ``"w1a1"`` or ``"w1a2"``.
        fused: further call sites computed by the same kernel, where the runtime tells.
    """

    name: str
    kind: str
    precision: str
    fused: tuple[str, ...] = ()


class Session(ABC):
    """A network loaded in a runtime. Made by `open_session`."""

    runtime: str
    threads: int

    @property
    @abstractmethod
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the inputs for a batch of one."""

    @abstractmethod
    def run(self, x: Array | Sequence[Array]) -> list[Array]:
        """Outputs for one batch of any size.

        Args:
            x: the input, or one array for each input, float32 (batch, ...).
        """

    @abstractmethod
    def warm(self, x: Array | Sequence[Array] | None = None) -> Callable[[], Any]:
        """Bind inputs once, run twice, and return a call of nothing but the inference, for timing.

        Args:
            x: what to run on; by default noise of batch one.
        """

    @abstractmethod
    def layers(self) -> list[ExecutedLayer]:
        """What is executed for a batch of one, in execution order."""

    @abstractmethod
    def profile(self, x: Array | Sequence[Array] | None = None, runs: int = 128) -> list[tuple[str, float]]:
        """Seconds spent in each executed layer: the mean of the fastest three quarters of `runs` runs.

        Raises:
            ConfigError: the session was not opened with ``profile=True``.
        """

    def _inputs(self, x: Array | Sequence[Array] | None) -> list[Array]:
        if x is None:
            # Noise, not zeros: kernels may skip zeros, and denormals would slow them down.
            rng = np.random.default_rng(0)
            return [rng.normal(size=s).astype(np.float32) for s in self.input_shapes]
        arrays = [x] if isinstance(x, np.ndarray) else list(x)
        shapes = self.input_shapes
        if len(arrays) != len(shapes) or any(a.shape[1:] != s[1:] for a, s in zip(arrays, shapes, strict=False)):
            raise ConfigError(
                f"inputs of shape {[a.shape for a in arrays]} do not fit a network of inputs {shapes}: "
                "only the batch size (axis 0) is free"
            )
        return [np.ascontiguousarray(a, dtype=np.float32) for a in arrays]


def open_session(
    source: str | Path | Any, runtime: str = "openvino", threads: int = 1, *, profile: bool = False
) -> Session:
    """Load a network into a runtime for this CPU.

    No runtime may change the precision of a layer on its own: OpenVINO computes in float32 unless the file asks for
    bfloat16, and ONNX Runtime keeps float32 layers between two int8 ones in float32.

    Args:
        source: an ``.onnx`` file, an OpenVINO ``.xml`` file, or an ``onnx.ModelProto``.
        runtime: ``"openvino"`` or ``"onnxruntime"``.
        threads: how many threads one inference may use.
        profile: let the runtime time each layer, which slows it down.

    Raises:
        ConfigError: unknown runtime, unreadable file, or a file this runtime does not read.
        UnsupportedLayerError: the network has 1-bit layers, and the runtime is not OpenVINO.
        TargetUnavailable: the network has 1-bit layers, and there is no C++ compiler to build their kernels.
        MissingExtraError: the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime {runtime!r} is unknown: {did_you_mean(runtime, RUNTIMES)}")
    if threads < 1:
        raise ConfigError(f"threads={threads} must be at least 1")
    if isinstance(source, str | Path):
        source = Path(source)
        suffixes = (".onnx", ".xml") if runtime == "openvino" else (".onnx",)
        if source.suffix not in suffixes or not source.is_file():
            found = "is not a file" if source.suffix in suffixes else "has another ending"
            raise ConfigError(f"{runtime} reads {' or '.join(suffixes)}, and {source} {found}")
    if runtime == "openvino":
        from ._openvino import OpenVINOSession

        return cast(Session, OpenVINOSession(source, threads, profile))
    from ._onnxruntime import ORTSession

    return cast(Session, ORTSession(source, threads, profile))


def load_onnx(source: Path | Any) -> Any:
    """The ``onnx.ModelProto`` of a file; a model is handed through."""
    if not isinstance(source, Path):
        return source
    onnx = require("onnx", "export")
    try:
        return onnx.load(source)
    except Exception as e:  # protobuf raises its own types for a damaged file
        raise ConfigError(f"{source} is not a readable ONNX file: {str(e)[:200]}") from e


def precision_marks(proto: Any) -> dict[str, str]:
    """Node name -> the precision that `netfit` wrote next to it in an ONNX file."""
    return {n.name: p.value for n in proto.graph.node for p in n.metadata_props if p.key == "netfit.precision"}
