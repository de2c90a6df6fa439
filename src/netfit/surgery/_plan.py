"""Where a mixed-precision network rounds: which tensors are quantized, and which of them share one scale.

The same plan drives fake quantization in torch and the Q/DQ pairs of an exported file, so the network that is scored
is the network that is deployed. Rules:

1. A quantized layer rounds its weight, its input, and its output after the BatchNorm and ReLU fused into it. The
   network's own output stays fp32.
2. One tensor has one scale: all its readers see the rounded values. Readers that ask for different bits get the most.
3. Pooling, views and parts hand the scale through.
4. An add rounds its result when both its inputs are rounded, or when the policy names it; a concatenation likewise,
   and then all its inputs share one scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from netfit.workload import Op, Workload

__all__ = ["LAYER_KINDS", "QuantPlan", "plan_quantization"]

LAYER_KINDS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
FUSED = frozenset({"batch_norm", "relu", "relu6"})
PASSING = frozenset(
    {"max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean"}
    | {"flatten", "reshape", "transpose", "squeeze", "unsqueeze", "identity", "dropout", "chunk", "split", "slice"}
)
Key = tuple[str, int]


@dataclass(frozen=True)
class QuantPlan:
    """Which tensors of a network are rounded.

    Attributes:
        layers: weight bits of each quantized layer.
        points: operation whose result is rounded -> the scale it uses, named after the first operation of its chain.
        bits: bits of each scale.
        inputs: scale of each quantized layer's input.
    """

    layers: Mapping[Key, int]
    points: Mapping[Key, Key]
    bits: Mapping[Key, int]
    inputs: Mapping[Key, Key]


class _Graph:
    """Edges of a workload by tensor name."""

    def __init__(self, workload: Workload) -> None:
        self.ops = list(workload)
        self.maker = {t.name: op for op in workload for t in op.outputs}
        self.readers: dict[str, list[Op]] = {}
        for op in workload:
            for t in op.inputs:
                self.readers.setdefault(t.name, []).append(op)
        self.entry = {t.name: ("input", i) for i, t in enumerate(workload.inputs)}
        self.returned = set(workload.outputs)

    def end(self, op: Op) -> str:
        """Tensor after the BatchNorm and ReLU that can be fused into `op`."""
        name = op.outputs[0].name
        while name not in self.returned:
            readers = self.readers.get(name, [])
            if len(readers) != 1 or readers[0].kind not in FUSED:
                break
            name = readers[0].outputs[0].name
        return name

    def key(self, tensor: str) -> Key:
        """Operation (or network input) a tensor comes from."""
        return self.maker[tensor].key if tensor in self.maker else self.entry.get(tensor, (tensor, 0))

    def head(self, tensor: str) -> Key:
        """Operation that names the scale of a tensor: behind views, pooling, BatchNorm and ReLU."""
        while tensor in self.maker and self.maker[tensor].kind in FUSED | PASSING and self.maker[tensor].inputs:
            tensor = self.maker[tensor].inputs[0].name
        return self.key(tensor)

    def passed(self, tensor: str) -> list[str]:
        """The tensor and all those it is a pooled or reshaped form of."""
        found = [tensor]
        while tensor in self.maker and self.maker[tensor].kind in PASSING and self.maker[tensor].inputs:
            tensor = self.maker[tensor].inputs[0].name
            found.append(tensor)
        return found


def plan_quantization(
    workload: Workload, layers: Mapping[Key, tuple[int, int]], joins: Mapping[Key, int | None]
) -> QuantPlan:
    """Decide what is rounded for a choice of layers.

    Args:
        workload: the traced network.
        layers: quantized convolutions and linear layers, (weight bits, activation bits) each.
        joins: adds and concatenations the policy names; None keeps one in fp32.
    """
    graph = _Graph(workload)
    rounded: dict[str, int] = {}  # tensor -> bits

    def mark(tensor: str, bits: int) -> None:
        rounded[tensor] = max(bits, rounded.get(tensor, 0))

    inputs: dict[Key, str] = {}
    for op in graph.ops:
        if op.key not in layers:
            continue
        bits = layers[op.key][1]
        inputs[op.key] = op.inputs[0].name
        for tensor in graph.passed(op.inputs[0].name):
            mark(tensor, bits)
        if graph.end(op) not in graph.returned:
            mark(graph.end(op), bits)
    shared = _join(graph, rounded, mark, joins)

    def scale(tensor: str) -> Key:
        head = graph.head(tensor)
        return shared.get(head, head)

    bits_of: dict[Key, int] = {}
    for tensor, bits in rounded.items():
        bits_of[scale(tensor)] = max(bits, bits_of.get(scale(tensor), 0))
    return QuantPlan(
        layers={k: w for k, (w, _) in layers.items()},
        points={graph.key(t): scale(t) for t in rounded},
        bits=bits_of,
        inputs={k: scale(t) for k, t in inputs.items()},
    )


def _join(graph: _Graph, rounded: dict[str, int], mark: object, joins: Mapping[Key, int | None]) -> dict[Key, Key]:
    """Round the results of joins whose inputs are rounded; heads of one concatenation map to one shared scale."""
    shared: dict[Key, Key] = {}
    for op in graph.ops:
        if op.kind not in ("add", "cat") or len(op.inputs) < 2:
            continue
        known = [rounded.get(t.name, 0) for t in op.inputs]
        wanted = joins.get(op.key, max(known) if all(known) else None)
        if wanted is None:
            continue
        if graph.end(op) not in graph.returned:
            mark(graph.end(op), wanted)  # type: ignore[operator]
        for t in op.inputs:
            mark(t.name, wanted)  # type: ignore[operator]
        if op.kind == "cat":
            for t in op.inputs:
                shared[graph.head(t.name)] = op.key
    return shared
