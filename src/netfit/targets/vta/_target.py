"""`VTA`: the accelerator as a target for whole networks."""

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from netfit.errors import ConfigError
from netfit.surgery import Policy
from netfit.workload import Op

from .._base import DeviceSpec, Target
from .._table import CostTable
from .._traced import traced
from ._config import Config
from ._conv import Conv, Knobs, all_knobs
from ._features import estimate
from ._lower import lower
from ._rules import Strict, why_invalid
from ._simulator import Stats, times
from ._timing import Timing

__all__ = ["VTA", "best_knobs", "from_text"]

_SHORTLIST = 24  # nests that are simulated, of those the estimate ranks first
_ACTS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})


class VTA(Target):
    """A VTA that runs every convolution and matrix product in int8, simulated instruction by instruction.

    Each layer runs the fastest of the loop nests that a quick estimate ranks first. A 2-d convolution runs as one;
    grouped ones group by group; any other product as a 1x1 convolution over its rows, which the host has to
    bring into that form. Operators that multiply nothing run on the host beside it: rows of zeros.

    Source: "A Hardware-Software Blueprint for Flexible Deep Learning Specialization" (2019).

    Args:
        config: core and memories.
        timing: cycles of its instructions; those fitted to a published board by default.

    >>> from netfit.workload import trace
    >>> from torch import nn, ones
    >>> table = VTA().cost(nn.Sequential(nn.Conv2d(16, 16, 3)), ones(1, 16, 10, 10))
    >>> table.names, bool(table.time_s[0] > 64 * 9 / 100e6)  # at least one cycle a product
    (('0',), True)
    """

    kind = "simulated"

    def __init__(self, config: Config | None = None, timing: Timing | None = None) -> None:
        self.config, self.timing = config or Config(), timing or Timing()

    @property
    def spec(self) -> DeviceSpec:
        """Peak operations (two a multiply-accumulate) and bandwidth of its loads."""
        c = self.config
        bandwidth = {"dram": self.timing.dma_bytes_per_cycle * c.clock_hz}
        return DeviceSpec(f"VTA {c.name}", {"int8": 2.0 * c.macs * c.clock_hz}, bandwidth)

    @property
    def channel_step(self) -> int:
        """Channels of one word."""
        return self.config.block_out

    def fingerprint(self) -> dict[str, Any]:
        """Every parameter of the accelerator and its cycle model."""
        return {"target": "vta", "config": asdict(self.config), "timing": asdict(self.timing)}

    def precisions(self, kind: str) -> tuple[str, ...]:
        """int8 for what multiplies; fp32 for what the host does beside it."""
        return ("int8",) if kind in _ACTS else ("fp32",)

    def cost(self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None) -> CostTable:
        """Simulated time and bytes of one inference, one row per operator.

        Args:
            workload_or_model: a traced workload, or a model with its example inputs.
            *example_inputs: what ``model`` is called with.
            policy: applied first. On a workload it may only quantize.

        Returns:
            A table whose ``breakdown`` sums up to its times: ``compute`` (the matrix core and vector unit work),
            ``waiting`` (they wait for memory) and ``host``.

        Raises:
            ConfigError: nothing to multiply, or a layer that asks for more than 8 bits.
            TargetUnavailable: there is no C compiler.
        """
        workload, asked = traced(workload_or_model, example_inputs, policy, "a VTA")
        for (name, _), bits in asked.items():
            if max(bits) > 8:
                raise ConfigError(f"{name} asks for {max(bits)} bits; a VTA multiplies int8")
        parts = [self._layer(op) for op in workload]
        if not any(parts):
            raise ConfigError(f"the network has {len(workload)} operators, none of which is a matrix product")
        rows = [_total(part, self.timing, self.config) for part in parts]
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        macs = np.array([op.macs for op in workload], np.float64)
        busy = np.maximum(columns["cycles"] * self.config.macs, 1)
        waiting = np.maximum(0.0, columns["cycles"] - columns["busy"])
        hz = self.config.clock_hz
        return CostTable(
            tuple(op.name if not op.call else f"{op.name}#{op.call}" for op in workload),
            tuple(op.kind for op in workload),
            columns["cycles"] / hz + columns["host"],
            bytes={name: columns[name] for name in ("inp", "wgt", "out", "uop")},
            utilization=np.minimum(1.0, macs / busy),
            breakdown={
                "compute": (columns["cycles"] - waiting) / hz, "waiting": waiting / hz, "host": columns["host"],
            },
            source=f"simulated: VTA {self.config.name}, {hz / 1e6:g} MHz",
        )  # fmt: skip

    def _layer(self, op: Op) -> list["_Part"]:
        return [_Part(_run(conv, self.config, self.timing)[1], count) for conv, count in convolutions(op, self.config)]


@dataclass(frozen=True)
class _Part:
    """A convolution of an operator, so many times."""

    stats: Stats
    count: int


def _total(parts: list[_Part], timing: Timing, config: Config) -> dict[str, float]:
    names = {"inp": "inp_load_nbytes", "wgt": "wgt_load_nbytes", "out": "out_store_nbytes", "uop": "uop_load_nbytes"}
    out = {name: float(sum(p.stats.counters[key] * p.count for p in parts)) for name, key in names.items()}
    out["cycles"] = sum(p.stats.cycles * p.count for p in parts)
    out["busy"] = sum(p.stats.busy["compute"] * p.count for p in parts)
    out["host"] = timing.host_s if parts else 0.0  # one call of the driver a layer
    return out


def convolutions(op: Op, config: Config) -> list[tuple[Conv, int]]:
    """The convolutions that do an operator's products, and how often each runs."""
    dilation = op.attrs.get("dilation", 1)
    plain = set(dilation if isinstance(dilation, list | tuple) else [dilation]) == {1}
    if op.kind == "conv2d" and plain and isinstance(op.attrs.get("padding", [0, 0]), list | tuple):
        weight = op.params["weight"] if "weight" in op.params else op.inputs[1]
        groups = int(op.attrs.get("groups", 1))
        n, c, h, w = op.inputs[0].shape
        k, _, r, s = weight.shape
        stride, padding = _pair(op.attrs.get("stride", 1)), _pair(op.attrs.get("padding", 0))
        if max(padding) <= 15:
            conv = Conv.of(
                config, n=n, c=c // groups, h=h, w=w, k=k // groups, r=r, s=s, stride=stride, padding=padding
            )
            return [(conv, groups)]
    return [(_rows(g.m, g.n, g.k, config), g.count * g.groups) for g in op.gemms()]


def _pair(value: Any) -> tuple[int, int]:
    values = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return (values[0], values[-1])


def _rows(m: int, n: int, k: int, config: Config) -> Conv:
    """A product as a 1x1 convolution over its rows: so many that they divide into tiles."""
    rows = -(-m // config.batch)
    step = 64 if rows > 64 else 1
    return Conv(1, -(-rows // step) * step, -(-k // config.block_in), -(-n // config.block_out))


@functools.lru_cache(maxsize=4096)
def _run(conv: Conv, config: Config, timing: Timing, swap: bool = False) -> tuple[Knobs, Stats]:
    strict, shortlist = _shortlist(conv, config, timing, swap)
    found = [(knobs, times(lower(conv, knobs, config, strict=strict, swap=swap), timing)) for knobs in shortlist]
    return min(found, key=lambda pair: pair[1].cycles)


def _shortlist(conv: Conv, config: Config, timing: Timing, swap: bool) -> tuple[Strict, list[Knobs]]:
    grid = all_knobs(conv)
    modes: tuple[Strict, ...] = ("tvm", "isa")
    for strict in modes:
        valid = [k for k in grid if why_invalid(conv, k, config, strict, swap) is None]
        if valid:
            order = np.argsort(estimate(conv, valid, config, timing, swap), kind="stable")[:_SHORTLIST]
            return strict, [valid[i] for i in order]
    raise ConfigError(f"{conv} fits into no tile of a VTA {config.name}")


def best_knobs(conv: Conv, config: Config, timing: Timing | None = None, *, swap: bool = False) -> Knobs:
    """The loop nest a network's layer would run: the fastest of those the estimate ranks first.

    Args:
        conv: what is computed.
        config: the accelerator.
        timing: of its instructions.
        swap: the image is the right operand of the product.

    Raises:
        ConfigError: no tile of the convolution fits.
    """
    return _run(conv, config, timing or Timing(), swap)[0]


def from_text(argument: str) -> VTA:
    """Factory of ``"vta"``, ``"vta:1x16"`` and ``"vta:4x8"``.

    >>> from_text("4x8").config.batch
    4
    """
    return VTA(Config.from_text(argument))
