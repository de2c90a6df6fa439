"""How one measured time is handed out to the layers of a network."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from netfit.deploy import to_onnx
from netfit.errors import ConfigError
from netfit.io import write_bytes
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


def exported(model: nn.Module, example_inputs: Sequence[torch.Tensor], path: Path) -> Path:
    """Write ``model`` as ONNX to ``path``."""
    write_bytes(path, to_onnx(model, example_inputs).SerializeToString())
    return path


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
    from netfit.surgery import apply

    return apply(model, policy, *example_inputs)


def with_kinds(table: CostTable, model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> CostTable:
    """Name operators as the workload does where a row is one of its call sites, not as the runtime does."""
    ops = trace(model, *example_inputs)
    kinds = {f"{op.name}#{op.call}" if op.call else op.name: op.kind for op in ops}
    return replace(table, kind=tuple(map(kinds.get, table.names, table.kind)))


def eager_profile(
    model: nn.Module, example_inputs: Sequence[torch.Tensor], threads: int
) -> tuple[Callable[[], Any], Layers]:
    """A call of the eager model for timing, and the seconds of its operators run one by one."""
    torch.set_num_threads(threads)
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
