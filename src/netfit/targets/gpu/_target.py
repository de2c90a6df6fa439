"""`GPU`: a target for a GPU that is not here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, did_you_mean
from netfit.surgery import Policy

from .._base import Kind, Target
from .._table import CostTable
from .._traced import traced
from ._devices import GPUSpec, device, peak
from ._features import LAUNCH_S, bounds, matrix
from ._launch import BITS, Launch
from ._lower import Call, calls
from ._predictor import KernelPredictor

__all__ = ["GPU", "KernelExplanation", "from_text"]

FloatArray = NDArray[np.float64]
_LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
_LADDER = ("fp32", "bf16", "int8")  # what a policy can ask for
COVERAGE = 0.9


@dataclass(frozen=True)
class KernelExplanation:
    """Where the time of one operator goes.

    Attributes:
        name: site of the operator.
        kind: its kind.
        shares: part of the time by cause: ``compute`` or ``memory`` (at the peak of the data sheet), ``launch`` and
            ``below_peak`` (what a trained predictor adds); sum 1.
        cause: the largest share.
        text: what it means and what would help.
    """

    name: str
    kind: str
    shares: dict[str, float]
    cause: str
    text: str


@dataclass(frozen=True, eq=False)
class _Costed:
    """What is known of every kernel."""

    calls: Sequence[Call]
    compute: FloatArray
    memory: FloatArray
    time: FloatArray
    lo: FloatArray
    hi: FloatArray
    predicted: NDArray[np.bool_]
    power: FloatArray | None


class GPU(Target):
    """A GPU that costs a network operator by operator, one kernel each, as an eager framework runs it.

    Without a trained predictor every time is a bound: operations at the data sheet's peak or bytes at its bandwidth,
    whichever is longer, and the launch. No kernel is faster, most are slower; ``kind`` is then ``"bounded"`` and the
    table's source says so. With one, operators of the kinds and precisions it was trained on are predicted with 90 %
    intervals, all others stay bounds. netfit ships no measured table: train on your own (`KernelDB`).

    Convolutions are predicted as the matrix products they are lowered to, unless the predictor knows convolutions.

    Args:
        device: name of a GPU (see `devices`), or its description.
        time: predictor of seconds, or the folder it was saved in.
        power: predictor of watts, or its folder; gives energy as time x power. Operators it does not know count at
            the board's power limit.
        precision: of every operator that no policy gives another, such as ``"bf16"``; by default that of its tensors.
        launch_overhead_s: seconds between two kernels, added to bounds.

    Raises:
        ConfigError: unknown device or precision, or a predictor of something else.

    >>> from torch import nn, ones
    >>> table = GPU("h100").cost(nn.Sequential(nn.Linear(4096, 4096)), ones(1, 4096))
    >>> round(float(table.time_s[0]) * 1e6, 1)  # 67 MB of weights at 3.35 TB/s, and a launch
    23.0
    """

    kind: ClassVar[Kind] = "predicted"

    def __init__(
        self,
        device: str | GPUSpec,
        time: KernelPredictor | str | Path | None = None,
        power: KernelPredictor | str | Path | None = None,
        precision: str | None = None,
        launch_overhead_s: float = LAUNCH_S,
    ) -> None:
        self._spec = device if isinstance(device, GPUSpec) else _named(device)
        self._time, self._power = _loaded(time, "time"), _loaded(power, "power")
        if precision is not None and precision not in BITS:
            raise ConfigError(f"precision {precision!r}; {did_you_mean(precision, BITS)}")
        if not 0 <= launch_overhead_s < 1:
            raise ConfigError(f"launch_overhead_s = {launch_overhead_s}; allowed are seconds from 0 to 1")
        self.precision, self.launch_overhead_s = precision, launch_overhead_s
        if self._time is None:
            self.kind = "bounded"  # type: ignore[misc]  # what its numbers are depends on the predictor
        peak(self._spec, precision or "fp32")

    @property
    def spec(self) -> GPUSpec:
        """The data sheet."""
        return self._spec

    @property
    def channel_step(self) -> int:
        """Tensor cores take operands in steps of 8."""
        return 8

    def fingerprint(self) -> dict[str, Any]:
        """Data sheet, settings and predictors."""
        models = {name: p and repr(p) for name, p in (("time", self._time), ("power", self._power))}
        settings = {"precision": self.precision, "launch_overhead_s": self.launch_overhead_s}
        return {"target": "gpu", "spec": asdict(self._spec)} | models | settings

    def precisions(self, kind: str) -> tuple[str, ...]:
        """Precisions that the device has units for; ``("fp32",)`` for operators that are not layers."""
        flops = self._spec.flops or {}
        return tuple(p for p in _LADDER if p in flops) or ("fp32",) if kind in _LAYERS else ("fp32",)

    def cost(self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None) -> CostTable:
        """Seconds and bytes of one inference, one row per operator.

        Args:
            workload_or_model: a traced workload, or a model with its example inputs.
            *example_inputs: what ``model`` is called with.
            policy: applied first. On a workload it may only quantize, because pruning changes shapes.

        Returns:
            A table with the parts ``compute`` or ``memory``, ``launch`` and ``below_peak`` of each time.

        Raises:
            ConfigError: the input cannot be costed, or the device has no peak for a precision.
        """
        workload, bits = traced(workload_or_model, example_inputs, policy, "a GPU")
        found = self._costed(calls(workload, self._spec.name, bits, self.precision))
        owner = np.array([call.op for call in found.calls], np.intp)
        times = np.array([call.times for call in found.calls], np.float64)

        def per_op(x: FloatArray) -> FloatArray:
            return np.bincount(owner, x * times, len(workload)).astype(np.float64)

        total = per_op(found.time)
        ideal = per_op(found.compute)
        return CostTable(
            tuple(f"{name}#{call}" if call else name for name, call in (op.key for op in workload)),
            tuple(op.kind for op in workload),
            total,
            per_op(found.lo),
            per_op(found.hi),
            energy_j=None if found.power is None else per_op(found.time * found.power),
            bytes={"dram": per_op(np.array([call.launch.bytes for call in found.calls]))},
            utilization=np.clip(ideal / np.maximum(total, 1e-30), 0.0, 1.0),
            breakdown={name: per_op(part) for name, part in self._parts(found).items()},
            source=self._source(found),
        )

    def explain(
        self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None
    ) -> tuple[KernelExplanation, ...]:
        """Why each operator takes as long as it does; arguments as for `cost`, operators without work left out."""
        table = self.cost(workload_or_model, *example_inputs, policy=policy)
        out = []
        for i in np.flatnonzero(table.time_s):
            shares = {name: float(part[i] / table.time_s[i]) for name, part in table.breakdown.items()}
            cause = max(shares, key=lambda name: shares[name])
            text = f"{shares[cause]:.0%} of the time: {_CAUSES[cause]}"
            out.append(KernelExplanation(table.names[i], table.kind[i], shares, cause, text))
        return tuple(out)

    def _costed(self, kernels: Sequence[Call]) -> _Costed:
        if not kernels:
            raise ConfigError("the network has no operator that does work on a GPU")
        launches = [call.launch for call in kernels]
        specs = {self._spec.name: self._spec}
        compute, memory = bounds(launches, specs)
        time = np.maximum(compute, memory) + self.launch_overhead_s
        lo, hi = time.copy(), time.copy()
        predicted = np.zeros(len(kernels), bool)
        if self._time is not None:
            shown = [_as_known(launch, self._time.kinds) for launch in launches]
            rows = [i for i, launch in enumerate(shown) if launch is not None]
            predicted[rows] = True
            if rows:
                x = matrix([launch for launch in shown if launch is not None], "op", specs)
                time[rows], lo[rows], hi[rows] = self._time.predict(x, interval=COVERAGE)
        return _Costed(kernels, compute, memory, time, lo, hi, predicted, self._watts(launches, specs))

    def _watts(self, launches: Sequence[Launch], specs: dict[str, GPUSpec]) -> FloatArray | None:
        if self._power is None:
            return None
        if self._spec.tdp_w is None:
            raise ConfigError(f"device {self._spec.name!r} has tdp_w None; power is predicted as a share of it")
        watts = np.full(len(launches), float(self._spec.tdp_w))
        shown = [_as_known(launch, self._power.kinds) for launch in launches]
        rows = [i for i, launch in enumerate(shown) if launch is not None]
        if rows:
            watts[rows] = self._power.predict(matrix([x for x in shown if x is not None], "op", specs))
        return watts

    def _parts(self, found: _Costed) -> dict[str, FloatArray]:
        """Seconds of each kernel by cause; a prediction below its bound has that much less of each."""
        bound = np.maximum(found.compute, found.memory)
        launch = np.full_like(bound, self.launch_overhead_s)
        shrink = np.minimum(1.0, found.time / np.maximum(bound + launch, 1e-30))
        by_compute = found.compute >= found.memory
        return {
            "compute": np.where(by_compute, bound, 0.0) * shrink,
            "memory": np.where(by_compute, 0.0, bound) * shrink,
            "launch": launch * shrink,
            "below_peak": np.maximum(0.0, found.time - (bound + launch) * shrink),
        }

    def _source(self, found: _Costed) -> str:
        n, known = len(found.calls), int(found.predicted.sum())
        if self._time is None:
            return (
                f"lower bound: {self._spec.name} by its data sheet, {self.launch_overhead_s * 1e6:g} us a launch, one "
                "kernel an operator; no trained predictor, real kernels are slower"
            )
        rest = "" if known == n else f", {n - known} bounded: the predictor was not trained on their kind and precision"
        return f"predicted: {self._spec.name}, {known} of {n} kernels{rest}"


_CAUSES = {
    "compute": "arithmetic at the data sheet's peak; fewer operations or fewer bits help",
    "memory": "operands at the memory's bandwidth; fewer bits, fusion with its neighbours or larger batches help",
    "launch": "too little work for a kernel; larger batches, fusion or CUDA graphs help",
    "below_peak": "measured kernels of this kind stay that far below the peak; rounder sizes and larger batches help",
}


def _as_known(launch: Launch, kinds: Sequence[str]) -> Launch | None:
    """The launch as the predictor knows it, or None."""
    if f"{launch.kind}:{launch.dtype}" in kinds:
        return launch
    if launch.kind == "conv2d" and launch.count == 1 and f"gemm:{launch.dtype}" in kinds:
        return replace(launch, kind="gemm")
    return None


def _loaded(given: KernelPredictor | str | Path | None, quantity: str) -> KernelPredictor | None:
    found = given if given is None or isinstance(given, KernelPredictor) else KernelPredictor.load(given)
    if found is not None and (found.quantity != quantity or found.features != "op"):
        raise ConfigError(f"{quantity} needs a predictor of {quantity} by features='op', not {found!r}")
    return found


def _named(name: str) -> GPUSpec:
    if not name:
        raise ConfigError("which GPU? such as gpu:h100 or gpu:a100,precision=bf16")
    return device(name)


def from_text(argument: str) -> GPU:
    """Factory of ``"gpu:h100"``; settings follow after commas: ``precision``, ``time`` and ``power`` (folders).

    >>> from_text("a100,precision=bf16").precision
    'bf16'
    """
    name, *settings = (word.strip() for word in argument.split(","))
    given: dict[str, Any] = {}
    for word in settings:
        key, equals, value = (part.strip() for part in word.partition("="))
        if key not in ("precision", "time", "power") or not equals or not value:
            raise ConfigError(f"target gpu:{argument}: {word!r}; allowed are precision=, time= and power=")
        given[key] = value
    return GPU(name, **given)
