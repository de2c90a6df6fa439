"""Small networks with every structure the deploy room must carry, and hand-made quantization for them."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netfit.deploy import Grid, Probe, QuantSpec, open_session, to_onnx

ACTIVATIONS = ("Relu", "Clip")


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + x)


class Residual(nn.Module):
    """Functional adds and activations, a depthwise layer, pooling, a head of an odd size."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.block1, self.block2 = Block(width), Block(width)
        self.pool = nn.MaxPool2d(2)
        self.dw = nn.Conv2d(width, width, 3, groups=width)
        self.fc = nn.Linear(width, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block2(self.block1(self.stem(x).relu()))
        x = F.relu6(self.dw(self.pool(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Concat(nn.Module):
    """Two branches joined, average pooling, batch norm behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.c = nn.Conv2d(16, 16, 3, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.fc1, self.bn1, self.fc2 = nn.Linear(144, 12), nn.BatchNorm1d(12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)
        x = F.avg_pool2d(F.relu(self.bn(self.c(F.max_pool2d(x, 2)))), 2, stride=1)
        return self.fc2(F.relu(self.bn1(self.fc1(torch.flatten(x, 1)))))


class Repeated(nn.Module):
    """One convolution and batch norm, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = F.relu(self.bn(self.conv(x)))
        return self.fc(x.mean((2, 3)))


def trained_like(model: nn.Module, *example: torch.Tensor) -> nn.Module:
    """Give batch norms statistics and scales of both signs, as training would."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(3):
            model(*(torch.randn(16, *x.shape[1:]) * 2 + 1 for x in example))
    return model.eval()


NETS = {
    "residual": (Residual, (2, 3, 12, 12)),
    "concat": (Concat, (2, 3, 12, 12)),
    "repeated": (Repeated, (2, 4, 8, 8)),
}


class Net:
    """A network, an example input of batch two, test data, and its ONNX form (exported once a session)."""

    def __init__(self, name: str) -> None:
        cls, shape = NETS[name]
        torch.manual_seed(1)
        self.example = torch.randn(shape)
        self.model = trained_like(cls(), self.example)
        self.x = torch.randn(64, *shape[1:])
        self.make = cls

    @functools.cached_property
    def onnx(self) -> Any:
        return to_onnx(self.model, (self.example,))

    @functools.cached_property
    def probe(self) -> Probe:
        return Probe(self.model, (self.example,))

    def reference(self, x: torch.Tensor | None = None) -> np.ndarray:
        with torch.no_grad():
            return self.model(self.x if x is None else x).numpy()


@functools.cache
def _net(name: str) -> Net:
    return Net(name)


@pytest.fixture
def nets() -> Callable[[str], Net]:
    """Networks by name; shared by all tests, so nobody changes them."""
    return _net


@pytest.fixture
def spec() -> Callable[..., QuantSpec]:
    return spec_for


def ranges(proto: Any, x: np.ndarray) -> dict[str, tuple[float, float]]:
    """Minimum and maximum of every float tensor of a network."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    names = [v for n in proto.graph.node for v in n.output]
    known = {o.name for o in proto.graph.output}
    for v in names:
        if v not in known:
            probe.graph.output.append(onnx.helper.make_empty_tensor_value_info(v))
    outputs = [o.name for o in probe.graph.output]
    values = dict(zip(outputs, open_session(probe, "onnxruntime").run(x), strict=True))
    values[proto.graph.input[0].name] = x
    return {n: (float(v.min()), float(v.max())) for n, v in values.items() if v.dtype == np.float32}


def spec_for(proto: Any, x: np.ndarray, chosen: set[str]) -> QuantSpec:
    """Quantize the chosen layers by min/max: their inputs, their outputs after the activation, joins in between."""
    import onnx

    found = ranges(proto, x)
    outputs = {o.name for o in proto.graph.output}
    readers: dict[str, list[Any]] = {}
    for n in proto.graph.node:
        for v in n.input:
            readers.setdefault(v, []).append(n)

    def end(v: str) -> str:
        after = readers.get(v, [])
        return after[0].output[0] if len(after) == 1 and after[0].op_type in ACTIVATIONS else v

    made_by = {v: n for n in proto.graph.node for v in n.output}

    def source(v: str) -> str:
        while v in made_by and made_by[v].op_type in ("MaxPool", "Reshape", "Flatten"):
            v = made_by[v].input[0]
        return v

    weights = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    layers, tensors = {}, set()
    for n in proto.graph.node:
        if n.name in chosen:
            w = weights[n.input[1]]
            layers[n.name] = (np.abs(w).reshape(len(w), -1).max(1) / 127).astype(np.float32)
            tensors |= {source(n.input[0]), end(n.output[0])} - outputs
    for n in proto.graph.node:
        if n.op_type == "Add" and all(source(v) in tensors for v in n.input):
            tensors.add(end(n.output[0]))
        if n.op_type == "Concat" and n.output[0] in tensors:
            tensors |= set(n.input)
    grids = {}
    for v in tensors:
        low, high = min(found[v][0], 0.0), max(found[v][1], 0.0)
        scale = float(np.float32((high - low) / 255))
        grids[v] = Grid(scale, int(np.clip(round(-low / scale), 0, 255)))
    return QuantSpec(grids, layers)
