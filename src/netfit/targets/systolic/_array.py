"""`SystolicArray`: a target that nobody has to build."""

from dataclasses import asdict
from typing import Any

import numpy as np

from netfit.surgery import Policy

from .._base import DeviceSpec, Target
from .._table import CostTable
from .._traced import traced
from ._config import Compat, SystolicConfig
from ._cost import GemmCost, check_compat, evaluate
from ._explain import Explanation, explain, parts
from ._layers import Layers, lower, widths
from ._simulator import Simulation, simulate

__all__ = ["SystolicArray", "from_text"]

# What the surgery room quantizes; every other kind of product runs at the array's own width.
_LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
_LADDER = ((32, "fp32"), (16, "bf16"), (8, "int8"))


class SystolicArray(Target):
    """An array of multiply-accumulate elements, counted exactly.

    It runs what multiplies matrices: convolutions, linear and recurrent layers, attention, matrix products.
    Everything else (normalisation, activation functions, pooling) is taken to run beside the array in time that
    nobody waits for: these operators are rows of zeros.

    A layer has the precision its policy asks for, else the array's own. Fewer bits move fewer bytes and less
    energy; cycles change only where the array waits for memory.

    Source: "On the Difficulty of Designing Processor Arrays for Deep Neural Networks" (2020). See the closed forms
    in this package for what is native and what is compatible.

    Args:
        config: the array.
        compat: count as ``"camuy"`` or ``"scalesim"`` does (SCALE-Sim always loads tiles serially, whatever
            ``weight_load`` says); None counts until the array has drained.

    Raises:
        ConfigError: the reference cannot do what the array does.

    >>> from netfit.workload import trace
    >>> from torch import nn, ones
    >>> table = SystolicArray(SystolicConfig(16, 16)).cost(nn.Sequential(nn.Linear(32, 16)), ones(100, 32))
    >>> table.names, float(table.time_s[0])  # 2 tiles of 100 rows, and 31 cycles until the array has drained
    (('0',), 2.31e-07)
    """

    kind = "simulated"

    def __init__(self, config: SystolicConfig, compat: Compat | None = None) -> None:
        check_compat(config, compat)
        self.config, self.compat = config, compat

    @property
    def spec(self) -> DeviceSpec:
        """Peak operations (two a multiply-accumulate), and bandwidth where memory is modelled."""
        c = self.config
        peak = {self.precisions("linear")[0]: 2.0 * c.rows * c.cols * c.clock_hz}
        memory = None if c.dram_bytes_per_s is None else {"dram": c.dram_bytes_per_s}
        return DeviceSpec(f"systolic array {c.rows}x{c.cols}, {c.dataflow}", peak, memory)

    @property
    def channel_step(self) -> int:
        """Channels that are multiples of the columns leave no column idle."""
        return self.config.cols

    def fingerprint(self) -> dict[str, Any]:
        """Every parameter of the array."""
        return {"target": "systolic", "compat": self.compat, "config": asdict(self.config)}

    def precisions(self, kind: str) -> tuple[str, ...]:
        """Precisions the multipliers are wide enough for; ``("fp32",)`` for operators beside the array."""
        if kind not in _LAYERS:
            return ("fp32",)
        weight, act = self.config.weight_bits, self.config.act_bits
        fitting = tuple(name for bits, name in _LADDER if bits <= min(weight, act))
        return fitting or (f"w{weight}a{act}",)

    def cost(self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None) -> CostTable:
        """Cycles, energy and bytes of one inference, one row per operator.

        Args:
            workload_or_model: a traced workload, or a model with its example inputs. Call-site hooks of a changed
                model are left out; what they ask of each layer is counted.
            *example_inputs: what ``model`` is called with.
            policy: applied first. On a workload it may only quantize, because pruning changes shapes.

        Returns:
            A table whose ``breakdown`` sums up to its times: ``compute`` (what a fully used array would take),
            ``folds`` (idle elements of partly filled tiles), ``fill_drain``, ``load`` (tiles shifted in or results
            out, serial arrays only) and ``memory``.

        Raises:
            ConfigError: nothing to multiply, a precision wider than the array, or a policy that needs the model.
        """
        layers, cost = self._counted(workload_or_model, example_inputs, policy)
        p, c, hz, per_op = layers.products, self.config, self.config.clock_hz, layers.per_op
        cycles = per_op(cost.cycles)
        weight_bits = c.weight_bits if p.weight_bits is None else p.weight_bits
        act_bits = c.act_bits if p.act_bits is None else p.act_bits
        moved = {
            "weights": per_op(cost.weight_loads * weight_bits / 8),
            "activations": per_op(cost.act_loads * act_bits / 8),
            "results": per_op(cost.result_stores * act_bits / 8),
            "accumulators": per_op(cost.accum_writes * c.accum_bits / 8),
        }
        if c.dram_bytes_per_s is not None:
            moved["dram"] = per_op(cost.dram_bytes)
        return CostTable(
            layers.names,
            layers.kinds,
            cycles / hz,
            energy_j=per_op(cost.energy_j),
            bytes=moved,
            utilization=np.minimum(1.0, per_op(cost.macs) / np.maximum(1.0, cycles * (c.rows * c.cols))),
            breakdown={name: part / hz for name, part in parts(layers, cost, c).items()},
            source=self._source(),
        )

    def gemms(self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None) -> GemmCost:
        """Every counter of every matrix product, as int64 arrays in order of execution; arguments as for `cost`."""
        return self._counted(workload_or_model, example_inputs, policy)[1]

    def explain(
        self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None
    ) -> tuple[Explanation, ...]:
        """Why each operator that multiplies takes as long as it does, and what would help; arguments as for `cost`."""
        layers, cost = self._counted(workload_or_model, example_inputs, policy)
        return explain(layers, cost, self.config)

    def simulate(self, a: Any, w: Any) -> Simulation:
        """Multiply two small integer matrices register by register; see :func:`simulate`."""
        return simulate(a, w, self.config)

    def _counted(self, given: Any, example_inputs: tuple[Any, ...], policy: Policy | None) -> tuple[Layers, GemmCost]:
        workload, asked = traced(given, example_inputs, policy, "a systolic array")
        layers = lower(workload, widths(workload, asked, self.config))
        return layers, evaluate(layers.products, self.config, self.compat)

    def _source(self) -> str:
        c = self.config
        counting = {None: f"{c.weight_load} load", "camuy": "as Camuy counts", "scalesim": "as SCALE-Sim counts"}
        return f"simulated: systolic array {c.rows}x{c.cols}, {c.dataflow}, {counting[self.compat]}"


def from_text(argument: str) -> SystolicArray:
    """Factory of ``"systolic:128x128"``; settings follow after commas, ``compat`` among them.

    >>> from_text("16x16,dataflow=os,compat=scalesim").compat
    'scalesim'
    """
    words = [word.strip() for word in argument.split(",")]
    compat: Any = next((word.partition("=")[2].strip() for word in words if word.startswith("compat")), None)
    config = SystolicConfig.from_text(",".join(word for word in words if not word.startswith("compat")))
    return SystolicArray(config, compat)
