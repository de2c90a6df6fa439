"""How one measured time is handed out to the layers of a network."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from netfit.errors import ConfigError
from netfit.surgery import Quantization, apply, calibrate, plain
from netfit.workload import export_program, from_program, trace

from ._measure import Timing
from ._table import CostTable

Layers = list[tuple[str, str, float]]  # name, kind, seconds

_PROFILE_RUNS = 16


def spread(timing: Timing, layers: Layers, source: str) -> CostTable:
    """Hand the measured time of a network out to its layers by the shares of their profile.

    Args:
        timing: the whole network without a profiler, which slows it down.
        layers: name, kind and seconds under the profiler; equal names are added up.
        source: head of the table's ``source``.
    """
    shares: dict[tuple[str, str], float] = {}
    for name, kind, seconds in layers:
        shares[name, kind] = shares.get((name, kind), 0.0) + seconds
    if not sum(shares.values()) > 0:  # every layer is shorter than the microsecond runtimes count in
        shares = {("network", "network"): 1.0}
    share = np.array(list(shares.values())) / sum(shares.values())
    return CostTable(
        names=tuple(name for name, _ in shares),
        kind=tuple(kind for _, kind in shares),
        time_s=share * timing.seconds,
        lo_s=share * timing.lo_s,
        hi_s=share * timing.hi_s,
        source=f"{source}, {timing.n} samples" + (", noisy" if timing.noisy else ""),
    )


def checked_model(model: Any, example_inputs: Sequence[Any], policy: Any) -> nn.Module:
    """The model to run: the one given, with the policy applied to a copy.

    Raises:
        ConfigError: given a workload or no example inputs; a measurement needs something that runs.
    """
    if not isinstance(model, nn.Module) or not example_inputs:
        raise ConfigError(
            "a measured target runs models: give it a torch module and its example inputs, "
            f"not a {type(model).__name__} with {len(example_inputs)} inputs"
        )
    if policy is None:
        return model
    changed = apply(model, policy, *example_inputs)
    calibrate(changed, [tuple(example_inputs)])  # any scale will do: values do not change the time
    return changed


def with_kinds(table: CostTable, model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> CostTable:
    """Name operators as the workload does where a row is one of its call sites, not as the runtime does."""
    ops = trace(plain(model), *example_inputs)
    kinds = {f"{op.name}#{op.call}" if op.call else op.name: op.kind for op in ops}
    return replace(table, kind=tuple(map(kinds.get, table.names, table.kind)))


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use that many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def eager_profile(model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> tuple[Callable[[], Any], Layers]:
    """A call of the eager model for timing, and the seconds of its operators run one by one.

    Raises:
        ConfigError: the model is quantized, which eager torch only simulates.
    """
    if Quantization.of(model) is not None:
        raise ConfigError("runtime torch only simulates quantization, slowly; choose openvino or onnxruntime")
    model = copy.deepcopy(model).eval()
    program = export_program(model, *example_inputs)
    graph = _Timed(program.module())
    with torch.no_grad():
        for _ in range(_PROFILE_RUNS):
            graph.run(*example_inputs)
    seconds = {node: float(np.percentile(times, 15)) for node, times in graph.times.items()}
    layers = [(op.name, op.kind, sum(seconds.get(t.name, 0.0) for t in op.outputs)) for op in from_program(program)]

    @torch.no_grad()
    def call() -> Any:
        return model(*example_inputs)

    return call, layers


class _Timed(fx.Interpreter):
    """Runs a graph node by node and keeps the time of each."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.times: dict[str, list[float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        before = perf_counter()
        out = super().run_node(n)
        if n.op == "call_function":
            self.times.setdefault(n.name, []).append(perf_counter() - before)
        return out
