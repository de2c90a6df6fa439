"""The classic methods by name, as the survey of the field groups them.

From "Resource-Efficient Neural Networks for Embedded Systems" (2024): quantized networks, structured pruning (by
magnitude or learned), and structural efficiency (distillation, structured matrices). What hardware makes of them
decides.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from netfit.errors import ConfigError, UnsupportedLayerError, did_you_mean
from netfit.surgery import Policy, Quantize, Technique
from netfit.targets import Target
from netfit.workload import Op, trace

from ._groups import plan_channels
from ._prune import Prune
from ._space import SearchSpace

__all__ = ["Family", "family", "family_policy", "uniform_precision"]

NAMES = ("uniform-int8", "uniform-bf16", "uniform-w4a8", "magnitude", "learned", "distillation")
PRUNED = 0.5  # share of the channels that a pruning family removes where no latency is given
EDGE = "int8"  # of the first and the last layer under fewer than eight bits, as is customary
_KINDS = ("conv1d", "conv2d", "conv3d", "linear")


@dataclass(frozen=True)
class Family:
    """One classic method.

    Attributes:
        name: as asked for.
        precision: of every layer.
        prunes: channels are removed until the latency is met.
        learned: which, and how many of each group, is learned in training instead of read off the weights.
        taught: the uncompressed network teaches the smaller one.
        fresh: the smaller network starts from new weights.
        replaces: policy of a structural replacement, which acts wherever it can; None for the others.
    """

    name: str
    precision: str = "fp32"
    prunes: bool = False
    learned: bool = False
    taught: bool = False
    fresh: bool = False
    replaces: Policy | None = None


def family(name: str) -> Family:
    """A method by its name.

    Args:
        name: ``"uniform-<precision>"`` (int8, bf16, or w<bits>a<bits> down to one bit), ``"magnitude"`` (structured
            pruning by L1 norm), ``"learned"`` (structured pruning with trained gates), ``"distillation"`` (a narrower
            network trained anew, taught by the original), or the policy name of a technique, such as a structured
            matrix, with its default settings.

    Raises:
        ConfigError: no such method or precision.

    >>> family("uniform-w4a8").precision, family("distillation").fresh
    ('w4a8', True)
    """
    if name.startswith("uniform-"):
        return Family(name, Quantize.of(name.removeprefix("uniform-")).precision)
    known = {
        "magnitude": Family(name, prunes=True),
        "learned": Family(name, prunes=True, learned=True),
        "distillation": Family(name, prunes=True, taught=True, fresh=True),
    }
    if name in known:
        return known[name]
    try:
        return Family(name, replaces=Policy.from_dict({"*": {name: {}}}))
    except ConfigError:
        raise ConfigError(f"no family and no technique is called {name!r}; {did_you_mean(name, NAMES)}") from None


def family_policy(name: str, model: nn.Module, *example_inputs: torch.Tensor) -> Policy:
    """A method as the policy of one network, as far as no training decides it.

    Args:
        name: as for `family`; ``"magnitude"`` removes half of the channels of every group.
        model: the uncompressed network.
        example_inputs: tensors it can be run with.

    Raises:
        ConfigError: no such method, or one that is a way of training.
        UnsupportedLayerError: nothing in the network can be treated by it.
    """
    found = family(name)
    if found.learned or found.fresh:
        raise ConfigError(f"family {name!r} is a way of training and no policy: netfit compress --family {name}")
    entries: dict[str, Technique]
    if found.replaces is not None:
        return found.replaces
    if found.prunes:
        groups = plan_channels(model, *example_inputs).free
        entries = {g.layers[0]: Prune(sparsity=PRUNED) for g in groups if g.layers}
    else:
        layers = [op for op in trace(model, *example_inputs) if op.kind in _KINDS and "weight" in op.params]
        precisions = _at_edges(layers, found.precision)
        entries = {layer: Quantize.of(p) for layer, p in precisions.items()}
    if not entries:
        raise UnsupportedLayerError(f"family {name!r} finds no layer it can act on in this network")
    return Policy(entries)


def uniform_precision(space: SearchSpace, precision: str, target: Target, ignore: Sequence[str] = ()) -> SearchSpace:
    """A space in which every layer has one precision, but for ignored ones, which keep their own.

    Fewer than eight bits need no kernels of their own where int8 runs: weights are stored at their bits and executed
    as int8, which the result then says of every layer.

    Raises:
        ConfigError: the target does not run it; the message lists what it runs.
    """
    bits = Quantize.of(precision)
    layers = [op for op in space.layers() if not any(fnmatchcase(op.name, p) for p in ignore)]
    for op in layers:
        offered = target.precisions(op.kind)
        emulated = max(bits.weight_bits, bits.act_bits) <= 8 and "int8" in offered
        if precision not in offered and not emulated:
            raise ConfigError(
                f"{target.spec.name} does not run {op.kind} layers such as {op.name!r} at {precision}; "
                f"it runs {', '.join(offered)}"
            )
    chosen = _at_edges(layers, precision)
    return replace(space, precisions={n: (chosen.get(n, p[0]),) for n, p in space.precisions.items()})


def _at_edges(layers: Sequence[Op], precision: str) -> dict[str, str]:
    """Precision of each layer; under fewer than eight bits the outermost, and those it cannot run at, keep EDGE."""
    low, wanted = re.fullmatch(r"w\d+a\d+", precision) is not None, Quantize.of(precision)
    ends = (layers[0].name, layers[-1].name) if layers else ()
    return {op.name: EDGE if low and (op.name in ends or not wanted.runs(op)) else precision for op in layers}
