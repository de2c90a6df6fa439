"""GPT-like networks as workloads: shapes only, so that 70 billion parameters take no memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from netfit.errors import ConfigError, UnsupportedLayerError, did_you_mean
from netfit.surgery import Policy
from netfit.targets import CostTable, DeviceSpec, Target
from netfit.targets.gpu import device
from netfit.workload import Op, TensorSpec, Workload

__all__ = ["GPTS", "Peak", "gpt"]


@dataclass(frozen=True)
class _Shape:
    layers: int
    hidden: int
    heads: int
    feed_forward: int
    vocabulary: int = 32_000


GPTS = {
    "gpt-1b": _Shape(24, 2048, 16, 8192),
    "gpt-7b": _Shape(32, 4096, 32, 16384),
    "gpt-70b": _Shape(80, 8192, 64, 36864),
}


def gpt(name: str, *, microbatch: int = 1, sequence: int = 2048) -> Workload:
    """The operators of a decoder-only transformer in bfloat16.

    Args:
        name: ``gpt-1b``, ``gpt-7b`` or ``gpt-70b``.
        microbatch: sequences per microbatch.
        sequence: tokens per sequence.

    Raises:
        ConfigError: no such network, or a size below 1.

    >>> round(gpt("gpt-7b").totals()["params"] / 1e9, 1)
    6.7
    """
    if name not in GPTS:
        raise ConfigError(f"no network {name!r}; {did_you_mean(name, GPTS)}")
    for field, value in (("microbatch", microbatch), ("sequence", sequence)):
        if value < 1:
            raise ConfigError(f"{field} is {value}, it must be at least 1")
    return _Builder(GPTS[name], microbatch, sequence).workload()


class _Builder:
    """Appends operators; each returns the tensor it makes."""

    def __init__(self, shape: _Shape, microbatch: int, sequence: int) -> None:
        self.shape, self.tokens = shape, (microbatch, sequence)
        self.ops: list[Op] = []

    def workload(self) -> Workload:
        s = self.shape
        tokens = TensorSpec("input", self.tokens, "int64")
        x = self._op("embedding", "embedding", (tokens,), s.hidden, {"weight": (s.vocabulary, s.hidden)})
        for layer in range(s.layers):
            x = self._block(f"layers.{layer}", x)
        x = self._op("norm", "layer_norm", (x,), s.hidden, {"weight": (s.hidden,)})
        x = self._linear("head", x, s.vocabulary)
        return Workload(self.ops, [tokens], [x.name])

    def _block(self, at: str, x: TensorSpec) -> TensorSpec:
        s = self.shape
        h = self._op(f"{at}.norm1", "layer_norm", (x,), s.hidden, {"weight": (s.hidden,)})
        qkv = self._linear(f"{at}.attn.qkv", h, 3 * s.hidden)
        batch, sequence = self.tokens
        heads = replace(qkv, shape=(batch, s.heads, sequence, s.hidden // s.heads))
        macs = 2 * batch * s.heads * sequence * sequence * (s.hidden // s.heads) // 2  # causal: half of the products
        a = self._op(f"{at}.attn.attention", "attention", (heads, heads, heads), s.hidden, {}, macs)
        h = self._linear(f"{at}.attn.out", a, s.hidden)
        x = self._op(f"{at}.add", "add", (x, h), s.hidden)
        h = self._op(f"{at}.norm2", "layer_norm", (x,), s.hidden, {"weight": (s.hidden,)})
        h = self._linear(f"{at}.mlp.up", h, s.feed_forward)
        h = self._op(f"{at}.mlp.gelu", "gelu", (h,), s.feed_forward)
        h = self._linear(f"{at}.mlp.down", h, s.hidden)
        return self._op(f"{at}.add_1", "add", (x, h), s.hidden)

    def _linear(self, name: str, x: TensorSpec, width: int) -> TensorSpec:
        macs = self.tokens[0] * self.tokens[1] * x.shape[-1] * width
        return self._op(name, "linear", (x,), width, {"weight": (width, x.shape[-1])}, macs)

    def _op(
        self, name: str, kind: str, inputs: tuple[TensorSpec, ...], width: int,
        params: dict[str, tuple[int, ...]] | None = None, macs: int = 0,
    ) -> TensorSpec:  # fmt: skip
        out = TensorSpec(name, (*self.tokens, width), "bfloat16")
        weights = {role: TensorSpec(f"{name}.{role}", shape, "bfloat16") for role, shape in (params or {}).items()}
        self.ops.append(Op(name, 0, kind, inputs, (out,), weights, {}, macs))
        return out


class Peak(Target):
    """A device that reaches fixed shares of its data sheet: 50 % of the arithmetic, 80 % of the memory bandwidth.

    Good enough to weigh stages against links; it knows nothing of kernels.

    Args:
        name: as for `netfit.targets.gpu.device`, such as ``"h100"``.

    Raises:
        ConfigError: no data sheet of that name, or a GPU without bfloat16.
    """

    kind = "bounded"
    arithmetic, memory = 0.5, 0.8

    def __init__(self, name: str) -> None:
        self._spec = device(name)
        if "bf16" not in (self._spec.flops or {}):
            raise ConfigError(f"device {name!r} has no bf16 arithmetic; take one that has, such as h100")

    @property
    def spec(self) -> DeviceSpec:
        """The data sheet."""
        return self._spec

    def fingerprint(self) -> dict[str, Any]:
        """Device and shares."""
        return {"device": self._spec.name, "arithmetic": self.arithmetic, "memory": self.memory}

    def precisions(self, kind: str) -> tuple[str, ...]:
        """bfloat16 only."""
        return ("bf16",)

    def cost(self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None) -> CostTable:
        """Seconds of every operator of a workload: the longer of its arithmetic and its memory traffic.

        Raises:
            UnsupportedLayerError: a model or a policy was given; trace the model first.
        """
        if not isinstance(workload_or_model, Workload) or example_inputs or policy is not None:
            raise UnsupportedLayerError(f"{self._spec.name}: give a traced workload without a policy")
        assert self._spec.flops is not None and self._spec.bandwidth is not None  # true of every data sheet
        flops, bandwidth = self.arithmetic * self._spec.flops["bf16"], self.memory * self._spec.bandwidth["dram"]
        work = [(2 * op.macs / flops, (op.weight_bytes + op.act_bytes) / bandwidth) for op in workload_or_model]
        names, kinds = zip(*((op.name, op.kind) for op in workload_or_model), strict=True)
        seconds = [max(pair) for pair in work]
        source = f"{self._spec.name} at {self.arithmetic:.0%} of peak, {self.memory:.0%} of bandwidth"
        return CostTable(names, kinds, seconds, source=source)  # type: ignore[arg-type]  # made an array there
