"""netfit's own operators in OpenVINO: loaded only for networks that have them, and only after they computed rightly."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from netfit.errors import TargetError, TargetUnavailable, require
from netfit.kernels import openvino_extension

from ._bits import DOMAIN, OPERATOR, bit_conv, bit_layers
from ._grid import Grid


def add_operators(core: Any, source: Path | Any) -> None:
    """Teach a ``Core`` the operators that a file or an ONNX model needs beyond OpenVINO's own.

    Raises:
        TargetUnavailable: they are needed and there is no C++ compiler to build them.
    """
    if isinstance(source, Path):  # OpenVINO's own format
        needed = f'type="{OPERATOR}"'.encode() in source.read_bytes()
    else:
        needed = bool(bit_layers(source))
    if needed:
        core.add_extension(str(_trusted_library()))


@functools.cache
def _trusted_library() -> Path:
    """The library, once it has computed a small convolution as numpy does.

    The CPU plugin swallows exceptions of an operator and hands out whatever its memory held.
    """
    try:
        path = openvino_extension()
    except TargetUnavailable as e:
        raise TargetUnavailable(f"the network has 1-bit layers, and {e}; or ask for int8 there") from e
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 70, 5, 4)).astype(np.float32)
    weight = rng.normal(size=(5, 70, 3, 3)).astype(np.float32)
    for grid in (Grid(0.5, 1, 2), Grid(0.5, 1, 4)):
        expected = _reference(x, weight, grid)
        found = _run(path, x, weight, grid)
        if not np.allclose(found, expected, rtol=1e-5, atol=1e-4):
            worst = float(np.abs(found - expected).max())
            raise TargetError(f"{path} computes wrong results (off by {worst:.3g}): delete it and report the processor")
    return path


def _reference(x: Any, weight: Any, grid: Grid) -> Any:
    q = np.clip(np.rint(x / np.float32(grid.scale)), -grid.zero_point, grid.levels - 1 - grid.zero_point)
    padded = np.pad(q * grid.scale, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    scaled = np.where(weight >= 0, 1.0, -1.0) * np.abs(weight).mean((1, 2, 3), keepdims=True)
    return np.einsum("nchwij,ocij->nohw", patches, scaled)


def _run(path: Path, x: Any, weight: Any, grid: Grid) -> Any:
    ov, onnx = require("openvino", "export"), require("onnx", "export")
    make = onnx.helper
    node, tensors = bit_conv(make.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * 4), weight, None, grid)
    graph = make.make_graph(
        [node], "check",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )  # fmt: skip
    proto = make.make_model(graph, opset_imports=[make.make_opsetid("", 20), make.make_opsetid(DOMAIN, 1)])
    core = ov.Core()
    core.add_extension(str(path))
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(core.read_model(proto.SerializeToString()), "CPU", options)([x])[0]
