"""What an agent sees of a layer: its shape and share of the work in the network as compressed so far."""

from collections.abc import Sequence
from math import prod
from typing import ClassVar

from torch import Tensor, nn

from netfit.compress._plan import ChannelGroup, ChannelPlan
from netfit.compress._prune import Prune
from netfit.compress._sensitivity import sensitivity
from netfit.compress._space import Candidate, SearchSpace
from netfit.compress._work import Work
from netfit.surgery import Quantize
from netfit.workload import Op

__all__ = ["ACTIONS", "NOT_ALLOWED", "SAMPLES", "Damage", "Features", "heads", "measure_damage"]

SAMPLES = 10  # sparsities at which a group's sensitivity is known: 0.0, 0.1 ... 0.9
NOT_ALLOWED = 1000.0
ACTIONS = {"prune": ("sparsity",), "quantize": ("activation", "weight"), "joint": ("sparsity", "activation", "weight")}
Damage = dict[str, dict[str, list[float]]]


def heads(space: SearchSpace) -> dict[str, ChannelGroup]:
    """Layers whose channels an agent prunes: of the layers that share a group, its first one acts for all."""
    return {g.layers[0]: g for g in space.plan.free if g.layers and len(space.steps[g.name]) > 1}


def measure_damage(model: nn.Module, x: Tensor, space: SearchSpace, agent: str) -> Damage:
    """Sensitivities of the layers: how far each choice alone moves the predictions.

    Galen compares the predictions right after the change; here BatchNorm statistics are refreshed first, which ranks
    whole policies better (see `sensitivity`).

    Args:
        model: the uncompressed network.
        x: training inputs (n, ...), 256 in Galen.
        space: groups and layers.
        agent: a name in `ACTIONS`; only what it sees is measured.

    Returns:
        ``"prune"`` -> layer -> one value for each sparsity; ``"int8"`` -> layer -> one value. Nats, at most 1000.
    """
    first = {} if agent == "quantize" else heads(space)
    sites = [n for n, p in space.precisions.items() if agent != "prune" and len(p) > 1 and "int8" in p]
    kept = [1 - i / SAMPLES for i in range(SAMPLES)]
    rows = sensitivity(
        model,
        x,
        ChannelPlan(tuple(first.values())),
        fractions=kept,
        precisions={n: [Quantize.of("int8")] for n in sites},
    )
    pruned = {(r.name, r.technique.keep): min(r.kl, NOT_ALLOWED) for r in rows if isinstance(r.technique, Prune)}
    return {
        "prune": {n: [pruned[g.name, g.fit(share)] for share in kept] for n, g in first.items()},
        "int8": {r.name: [min(r.kl, NOT_ALLOWED)] for r in rows if isinstance(r.technique, Quantize)},
    }


class Features:
    """States of the layers, in Galen's order of features (before standardisation).

    Bit operations are MACs times the bits of weights and of activations.

    Args:
        space: groups, layers and operators of the uncompressed network.
        damage: what `measure_damage` gave.
    """

    SIZES: ClassVar = {"prune": 19, "quantize": 32, "joint": 47}

    def __init__(self, space: SearchSpace, damage: Damage) -> None:
        self.space, self.damage = space, damage
        self._work = Work(space)
        self.layers = self._work.layers

    def state(self, agent: str, index: int, candidate: Candidate, previous: Sequence[float]) -> list[float]:
        """What an agent sees of one layer.

        Args:
            agent: a name in `ACTIONS`.
            index: of the layer.
            candidate: what was chosen for the layers before it; the others are uncompressed.
            previous: actions at the layer the agent saw before (sparsity, activation, weight; those it has).
        """
        op = self.layers[index]
        sizes, full = self._work.sizes(candidate), self._work.full
        macs = self._work.macs(sizes)
        low = [Quantize.of(candidate.precision[layer.name]) for layer in self.layers]
        bops = [m * q.weight_bits * q.act_bits for m, q in zip(macs, low, strict=True)]
        shape = [*sizes[index], *_window(op)]
        prune = self.damage["prune"].get(op.name, [NOT_ALLOWED] * SAMPLES)
        # The samples of Galen's bit-serial method stay at "not allowed", as in its nets that cannot run it.
        quantize = [*[NOT_ALLOWED] * (2 * SAMPLES), *self.damage["int8"].get(op.name, [NOT_ALLOWED]), 0.0]
        if agent == "prune":
            sparsity = 1 - sizes[index][0] / full[index][0]
            return [index, macs[index], *shape, *_around(macs, index), *prune, sparsity]
        if agent == "quantize":
            return [index, bops[index], *shape, *_around(bops, index), *quantize, *previous]
        weights = op.params["weight"].numel * prod(sizes[index]) / prod(full[index])
        around = [*_around(macs, index), *_around(bops, index)]
        return [index, macs[index], bops[index], *shape, weights, *around, *prune, *quantize, *previous]


def _around(work: Sequence[float], index: int) -> tuple[float, float]:
    """Shares of the network's work before and after a layer."""
    total = sum(work)
    return sum(work[:index]) / total, sum(work[index + 1 :]) / total


def _window(op: Op) -> tuple[float, float]:
    """Kernel size and stride; both 1 for a linear layer."""
    if op.kind == "linear":
        return 1.0, 1.0
    stride = op.attrs["stride"]
    return float(op.params["weight"].shape[2]), float(stride if isinstance(stride, int) else stride[0])
