"""What a compression search may choose: channels of each group, precision of each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import lcm
from typing import Any

import torch
from torch import nn

from netfit.errors import ConfigError, did_you_mean
from netfit.search import Categorical, Dimension, IntChoice
from netfit.surgery import Policy, Quantize, Technique
from netfit.targets import Target
from netfit.workload import Op, Workload, trace

from ._groups import plan_channels
from ._plan import ChannelPlan
from ._prune import Prune

__all__ = ["Candidate", "SearchSpace", "search_space"]

METHODS = ("prune", "quantize")
STEPS = 8  # channel counts offered for each group


@dataclass(frozen=True)
class Candidate:
    """One compressed form of a network.

    Attributes:
        keep: channels kept of each prunable group.
        precision: name on the precision ladder (``"fp32"``, ``"int8"``, ``"w4a4"`` ...) of each layer.
    """

    keep: Mapping[str, int]
    precision: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Groups, layers and what the target can do with them.

    Attributes:
        plan: channel groups of the network.
        workload: operators of the uncompressed network.
        steps: channel counts to choose from, by group, the full count last.
        precisions: precisions to choose from, by layer, the widest first.
    """

    plan: ChannelPlan
    workload: Workload
    steps: Mapping[str, tuple[int, ...]]
    precisions: Mapping[str, tuple[str, ...]]

    def dimensions(self) -> dict[str, Dimension]:
        """Search dimensions: ``keep:<group>`` and ``precision:<layer>`` wherever there is a choice."""
        found: dict[str, Dimension] = {f"keep:{g}": IntChoice(s) for g, s in self.steps.items() if len(s) > 1}
        found |= {f"precision:{n}": Categorical(p) for n, p in self.precisions.items() if len(p) > 1}
        if not found:
            raise ConfigError("nothing to search: no group can be pruned and the target has one precision only")
        return found

    def candidate(self, params: Mapping[str, Any]) -> Candidate:
        """The candidate behind a point of the search."""
        keep = {g: int(params.get(f"keep:{g}", s[-1])) for g, s in self.steps.items()}
        return Candidate(keep, {n: str(params.get(f"precision:{n}", p[0])) for n, p in self.precisions.items()})

    def params(self, candidate: Candidate) -> dict[str, Any]:
        """The point of the search behind a candidate."""
        point: dict[str, Any] = {f"keep:{g}": n for g, n in candidate.keep.items()}
        point |= {f"precision:{n}": p for n, p in candidate.precision.items()}
        return {name: point[name] for name in self.dimensions()}

    def uniform(self, fraction: float, narrow: bool = True) -> Candidate:
        """Every group at the step nearest to a fraction of its width, every layer at its narrowest or first precision.

        1-bit precisions do not count as narrow here: all of them at once leave nothing to score before training.
        """

        def nearest(steps: tuple[int, ...]) -> int:
            return min(steps, key=lambda n: (abs(n - fraction * steps[-1]), n))

        keep = {g: nearest(s) for g, s in self.steps.items()}
        usual = {n: [q for q in p if Quantize.of(q).weight_bits > 1] or p for n, p in self.precisions.items()}
        return Candidate(keep, {n: p[-1 if narrow else 0] for n, p in usual.items()})

    def layers(self) -> list[Op]:
        """Layers with weights, once each, in execution order."""
        first: dict[str, Op] = {}
        for op in self.workload:
            if op.name in self.precisions:
                first.setdefault(op.name, op)
        return list(first.values())

    def quantizers(self, candidate: Candidate) -> dict[tuple[str, int], Quantize]:
        """What to quantize, by call site."""
        low = {n: Quantize.of(p) for n, p in candidate.precision.items() if p != "fp32"}
        return {op.key: low[op.name] for op in self.workload if op.name in low and op.params}

    def policy(self, candidate: Candidate) -> Policy:
        """The candidate as a policy that `netfit.apply` understands: one entry for each layer that changes."""
        entries: dict[str, list[Technique]] = {}
        for op in self.layers():
            group = next((g for g in self.plan.free if g.layers and g.layers[0] == op.name), None)
            if group is not None and candidate.keep[group.name] < group.size:
                entries.setdefault(op.name, []).append(Prune(keep=candidate.keep[group.name]))
            if candidate.precision[op.name] != "fp32":
                entries.setdefault(op.name, []).append(Quantize.of(candidate.precision[op.name]))
        return Policy(entries)


def search_space(
    model: nn.Module,
    *example_inputs: torch.Tensor,
    target: Target,
    methods: Sequence[str] = METHODS,
    ignore: Sequence[str] = (),
) -> SearchSpace:
    """Find what can be chosen for a network on a target.

    Args:
        model: the uncompressed network.
        example_inputs: tensors it can be run with.
        target: says which precisions it runs.
        methods: ``"prune"``, ``"quantize"``, or both.
        ignore: patterns of layers that stay as they are.

    Raises:
        ConfigError: an unknown method, or an ignore pattern that matches no layer.
        UnsupportedLayerError: the network cannot be traced.
    """
    unknown = [m for m in methods if m not in METHODS]
    if unknown or not methods:
        raise ConfigError(f"unknown method {unknown[0] if unknown else ''!r}: {did_you_mean(str(unknown), METHODS)}")
    workload = trace(model, *example_inputs)
    layers = [op for op in workload if op.kind in ("conv1d", "conv2d", "conv3d", "linear") and op.params]
    for pattern in ignore:
        if not any(fnmatchcase(op.name, pattern) for op in layers):
            names = [op.name for op in layers]
            raise ConfigError(f"ignore pattern {pattern!r} matches no layer: {did_you_mean(pattern, names)}")
    plan = plan_channels(model, *example_inputs, ignore=ignore)
    lanes = target.channel_step
    steps = {g.name: _steps(g.size, g.divisor, lanes) if "prune" in methods else (g.size,) for g in plan.free}
    precisions = {}
    for op in layers:
        free = "quantize" in methods and not any(fnmatchcase(op.name, p) for p in ignore)
        precisions[op.name] = _ladder(target.offered(op)) if free else target.precisions(op.kind)[:1]
    return SearchSpace(plan, workload, steps, precisions)


def _ladder(offered: Sequence[str]) -> tuple[str, ...]:
    """Precisions to choose from. OpenVINO 2026.4 does not compile most nets that mix bf16 and int8 layers."""
    return tuple(p for p in offered if p != "bf16") if "int8" in offered else tuple(offered)


def _steps(size: int, divisor: int, lanes: int) -> tuple[int, ...]:
    """At most `STEPS` channel counts, the full one last: multiples of the target's lanes.

    A count between two multiples runs as slow as the larger one, or slower: int8 ResNet-20 at 75 % of its width took
    1.6 times as long as at full width on a processor with 16 lanes.
    """
    unit = lcm(divisor, lanes)
    blocks = max(1, size // unit)
    counts = {max(1, round(blocks * i / STEPS)) * unit for i in range(1, STEPS + 1)}
    return (*sorted(c for c in counts if c < size), size)
