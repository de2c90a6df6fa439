"""What a network computes, as plain data: operators, tensors, and every operator as matrix products."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any, overload

from netfit.errors import ArtifactError

from ._gemms import Gemm, lower

__all__ = ["Op", "TensorSpec", "Workload"]

FORMAT = 1
VIEWS = frozenset({"reshape", "flatten", "transpose", "slice", "identity", "dropout", "unsqueeze", "squeeze", "expand"})
IN_PLACE = frozenset({"batch_norm", "relu", "relu6"})  # every runtime fuses these into what comes before them
_ITEM_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "bfloat16": 2, "float16": 2, "int16": 2}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the graph; tensors with one name are the same tensor, so names are the edges."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size at the traced dtype, in bytes."""
        return self.numel * _ITEM_BYTES.get(self.dtype, 1)


@dataclass(frozen=True)
class Op:
    """One operator of a network.

    Attributes:
        name: call site: a layer's module path (``"layer1.0.conv1"``) or ``"<module path>.<kind>"``.
        call: how often the same place had run before in one forward pass.
        kind: canonical operation, such as ``"conv2d"`` or ``"add"``.
        inputs: activations read, in argument order.
        outputs: activations written.
        params: weights by role (``"weight"``, ``"bias"``, ...); a tensor's name is its state_dict key.
        attrs: what the shapes do not say (stride, padding, groups ...), JSON values only.
        macs: multiply-accumulates.
    """

    name: str
    call: int
    kind: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    params: Mapping[str, TensorSpec] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    macs: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """Name and call: unique in a workload."""
        return self.name, self.call

    @property
    def weight_bytes(self) -> int:
        """Bytes of the operator's trained parameters; running statistics are folded away before deployment."""
        return sum(p.bytes for p in self.trained)

    @property
    def trained(self) -> list[TensorSpec]:
        """Parameters without the running statistics of normalisation."""
        return [p for role, p in self.params.items() if not role.startswith("running_")]

    @property
    def act_bytes(self) -> int:
        """Bytes of activations read and written; a view moves none."""
        if self.kind in VIEWS:
            return 0
        return sum(t.bytes for t in (*self.inputs, *self.outputs))

    def gemms(self) -> tuple[Gemm, ...]:
        """The matrix products that do this operator's multiply-accumulates; empty for all others."""
        return lower(self.kind, self.inputs, self.outputs, self.params, self.attrs)


class Workload(Sequence[Op]):
    """A network as the list of its operators, in execution order.

    Attributes:
        ops: the operators.
        inputs: tensors the network reads.
        outputs: names of the tensors it returns.
    """

    def __init__(self, ops: Sequence[Op], inputs: Sequence[TensorSpec], outputs: Sequence[str]) -> None:
        self.ops, self.inputs, self.outputs = tuple(ops), tuple(inputs), tuple(outputs)

    @overload
    def __getitem__(self, index: int) -> Op: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Op]: ...
    def __getitem__(self, index: int | slice) -> Op | Sequence[Op]:
        return self.ops[index]

    def __len__(self) -> int:
        return len(self.ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"Workload({len(self)} operators, {self.totals()['macs']:,} MACs)"

    def totals(self) -> dict[str, int]:
        """Operators, MACs, parameters and bytes of the whole network; shared weights count once."""
        params = {p.name: p for op in self.ops for p in op.trained}
        return {
            "operators": len(self.ops),
            "macs": sum(op.macs for op in self.ops),
            "params": sum(p.numel for p in params.values()),
            "weight_bytes": sum(p.bytes for p in params.values()),
            "act_bytes": sum(op.act_bytes for op in self.ops),
        }

    def stored_bytes(self, weight_bits: Mapping[str, int]) -> int:
        """Bytes of all trained parameters when the weights of some layers take fewer bits; shared ones count once.

        Args:
            weight_bits: bits of one weight, by layer name.
        """
        found: dict[str, int] = {}
        for op in self.ops:
            for role, p in op.params.items():
                low = weight_bits.get(op.name) if role == "weight" else None
                if p in op.trained:
                    found.setdefault(p.name, p.bytes if low is None else -(-p.numel * low // 8))
        return sum(found.values())

    def peak_act_bytes(self, act_bits: Mapping[tuple[str, int], int] | None = None) -> int:
        """Most bytes of activations alive at one time, the operators running one after the other.

        A view is no tensor of its own, and normalisation and ReLU write over what nobody else reads.

        Args:
            act_bits: bits of the values an operator writes, by its key, and of those the network reads, by
                ``("input", number)``; as traced for all others.
        """
        bits = act_bits or {}

        def stored(t: TensorSpec, key: tuple[str, int]) -> int:
            return -(-t.numel * bits[key] // 8) if key in bits else t.bytes

        readers = Counter(t.name for op in self.ops for t in op.inputs)
        owner = {t.name: t.name for t in self.inputs}
        size = {t.name: stored(t, ("input", i)) for i, t in enumerate(self.inputs)}
        life = {t.name: [0, 0] for t in self.inputs}
        for at, op in enumerate(self.ops):
            for t in op.inputs:
                life.get(owner.get(t.name, ""), [0, 0])[1] = at
            source = op.inputs[0].name if op.inputs else ""
            in_place = op.kind in IN_PLACE and readers[source] == 1
            reused = source in owner and (op.kind in VIEWS or in_place)
            for t in op.outputs:
                owner[t.name] = name = owner[source] if reused else t.name
                life.setdefault(name, [at, at])[1] = at
                if not reused or op.key in bits:
                    size[name] = stored(t, op.key)
        for name in self.outputs:
            life[owner[name]][1] = len(self.ops) - 1
        alive = ([size[n] for n, (first, last) in life.items() if first <= at <= last] for at in range(len(self.ops)))
        return max(map(sum, alive), default=0)

    def table(self) -> list[dict[str, Any]]:
        """One plain row per operator, ready to print or to write as JSON."""
        return [
            {
                "name": op.name,
                "call": op.call,
                "kind": op.kind,
                "output": "x".join(map(str, op.outputs[0].shape)) if op.outputs else "",
                "macs": op.macs,
                "params": sum(p.numel for p in op.trained),
                "weight_bytes": op.weight_bytes,
                "act_bytes": op.act_bytes,
            }
            for op in self.ops
        ]

    def to_json(self) -> str:
        """The workload as canonical JSON text."""
        body = {
            "format": FORMAT,
            "ops": [asdict(op) for op in self.ops],
            "inputs": [asdict(t) for t in self.inputs],
            "outputs": self.outputs,
        }
        return json.dumps(body, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Workload":
        """Rebuild a workload from `to_json` text.

        Raises:
            ArtifactError: the text is no workload of a known format.
        """
        try:
            body = json.loads(text)
            if body["format"] != FORMAT:
                raise ValueError(f"format {body['format']!r}, this netfit reads {FORMAT}")
            ops = [_op(o) for o in body["ops"]]
            return cls(ops, [_tensor(t) for t in body["inputs"]], body["outputs"])
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise ArtifactError(f"not a workload: {type(e).__name__}: {e}") from e


def _tensor(d: dict[str, Any]) -> TensorSpec:
    return TensorSpec(str(d["name"]), tuple(int(n) for n in d["shape"]), str(d["dtype"]))


def _op(d: dict[str, Any]) -> Op:
    inputs, outputs = (tuple(_tensor(t) for t in d[k]) for k in ("inputs", "outputs"))
    params = {k: _tensor(t) for k, t in d["params"].items()}
    return Op(d["name"], d["call"], d["kind"], inputs, outputs, params, d["attrs"], d["macs"])
