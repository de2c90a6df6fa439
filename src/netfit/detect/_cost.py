"""What one row costs, stage by stage, before it runs."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from netfit.detect._forecaster import Forecaster
from netfit.detect._window_pca import WindowPCA, slices

if TYPE_CHECKING:
    from netfit.detect._hybrid import HybridDetector

__all__ = ["Cost", "StageCost", "cost_of"]

_SLOT_BYTES = 46 + 8  # state of a channel in the native code, and where its column is
_GROUP_BYTES = 8 * 6


@dataclass(frozen=True)
class StageCost:
    """One stage, for one row.

    Args:
        stage: its name.
        flops: floating-point operations; of a sort its comparisons. The least: data that is almost sorted.
        state_bytes: kept between rows.
        parameters: trained or fitted numbers.
        activations: numbers between operators, at batch 1; 0 where there are none.
    """

    stage: str
    flops: float
    state_bytes: int
    parameters: int = 0
    activations: int = 0


@dataclass(frozen=True)
class Cost:
    """All stages of a detector.

    Args:
        channels: that were assumed.
        groups: that were assumed.
        stages: in the order of work.
    """

    channels: int
    groups: int
    stages: tuple[StageCost, ...]

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)


def cost_of(detector: "HybridDetector", channels: int, groups: int, entities: int = 0) -> Cost:
    """Cost of a row with this many channels in groups of one size, and entities of one size.

    A forecaster is traced by `netfit.workload`; the other stages are counted by formulas. Fitting the components of
    `WindowPCA`, every `refit` rows, is not part of a row.
    """
    automatic = detector.peer.eps == "auto"
    # Compare and shift, sums of mean and deviation, neighbours from both sides, labels, score; two sorts if automatic.
    peer = StageCost("peers", channels * (24 if automatic else 14), channels * _SLOT_BYTES + groups * _GROUP_BYTES)
    stages = [peer]
    features = groups * len(detector.reducer.stats)
    temporal = detector.temporal
    if isinstance(temporal, WindowPCA):
        stages.append(_components("temporal", temporal, features))
    elif isinstance(temporal, Forecaster):
        stages.append(network_cost(temporal, features))
    if entities and temporal is not None:
        settings = temporal if isinstance(temporal, WindowPCA) else WindowPCA()
        one = _components("entities", settings, math.ceil(channels / entities))
        flops, state, parameters = entities * one.flops, entities * one.state_bytes, entities * one.parameters
        stages.append(StageCost("entities", flops, state, parameters))
    return Cost(channels, groups, tuple(stages))


def _components(name: str, settings: WindowPCA, features: int) -> StageCost:
    """Upper bound: as many components as inputs would be kept of noise; half of them are assumed."""
    flops = state = parameters = 0
    for block in slices(settings.window, features):
        inputs = (block.stop - block.start) * settings.window
        kept = max(1, inputs // 2)
        flops += 4 * inputs * kept + 6 * inputs
        parameters += inputs * kept
        state += 8 * (inputs * inputs + inputs * kept + 5 * inputs)
    return StageCost(name, flops, state + 8 * features * (settings.refit + settings.window), parameters, features)


def network_cost(settings: Forecaster, features: int) -> StageCost:
    """Cost of a forecaster, as `netfit.workload` traces it at batch 1."""
    import torch

    from netfit.workload import trace

    network = settings.build(features).eval()
    workload = trace(network, torch.zeros(1, settings.window, features))
    totals = workload.totals()
    parameters = sum(p.numel() for p in network.parameters())
    activations = sum(t.numel for op in workload.ops for t in op.outputs)
    return StageCost(settings.kind, 2.0 * totals["macs"], 4 * parameters, parameters, activations)
