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

__all__ = ["Family", "check_precision", "family", "family_policy", "uniform_precision"]

NAMES = ("uniform-int8", "uniform-bf16", "uniform-w4a8", "magnitude", "magnitude-0.5", "learned", "distillation")
PRUNED = 0.5  # share of the channels that a pruning family removes where no latency is given
EDGE = "int8"  # of the first and the last layer under fewer than eight bits, as is customary
_KINDS = ("conv1d", "conv2d", "conv3d", "linear")


@dataclass(frozen=True)
class Family:
    """One classic method.

    Attributes:
        name: as asked for.
        precision: of every layer.
        prunes: channels are removed.
        removes: the share of them; None removes as many as the latency asks for.
        learned: which, and how many of each group, is learned in training instead of read off the weights.
        taught: the uncompressed network teaches the smaller one.
        fresh: the smaller network starts from new weights.
        replaces: policy of a structural replacement, which acts wherever it can; None for the others.
    """

    name: str
    precision: str = "fp32"
    prunes: bool = False
    removes: float | None = None
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
            matrix, with its default settings. A pruning method may be followed by the share of the channels that it
            removes, and by the precision of what stays: ``"magnitude-0.5+int8"``.

    Raises:
        ConfigError: no such method, share or precision.

    >>> family("uniform-w4a8").precision, family("distillation").fresh, family("learned-0.25").removes
    ('w4a8', True, 0.25)
    """
    if name.startswith("uniform-"):
        return Family(name, Quantize.of(name.removeprefix("uniform-")).precision)
    known = {
        "magnitude": Family(name, prunes=True),
        "learned": Family(name, prunes=True, learned=True),
        "distillation": Family(name, prunes=True, taught=True, fresh=True),
    }
    method, plus, precision = name.partition("+")
    word, dash, share = method.partition("-")
    if word in known:
        removes = _share(name, share) if dash else None
        return replace(known[word], removes=removes, precision=Quantize.of(precision).precision if plus else "fp32")
    try:
        return Family(name, replaces=Policy.from_dict({"*": {name: {}}}))
    except ConfigError:
        raise ConfigError(f"no family and no technique is called {name!r}; {did_you_mean(name, NAMES)}") from None


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ConfigError(f"family {name!r}: {text!r} is no share of the channels, such as 0.5")
    return share


def family_policy(name: str, model: nn.Module, *example_inputs: torch.Tensor) -> Policy:
    """A method as the policy of one network, as far as no training decides it.

    Args:
        name: as for `family`; ``"magnitude"`` alone removes half of the channels of every group.
        model: the uncompressed network.
        example_inputs: tensors it can be run with.

    Raises:
        ConfigError: no such method, or one that is a way of training.
        UnsupportedLayerError: nothing in the network can be treated by it.
    """
    found = family(name)
    if found.learned or found.fresh:
        raise ConfigError(f"family {name!r} is a way of training and no policy: netfit compress --family {name}")
    if found.replaces is not None:
        return found.replaces
    entries: dict[str, list[Technique]] = {}
    if found.prunes:
        groups = plan_channels(model, *example_inputs).free
        entries = {g.layers[0]: [Prune(sparsity=found.removes or PRUNED)] for g in groups if g.layers}
    if not found.prunes or (entries and found.precision != "fp32"):
        layers = [op for op in trace(model, *example_inputs) if op.kind in _KINDS and "weight" in op.params]
        for layer, precision in _at_edges(layers, found.precision).items():
            entries.setdefault(layer, []).append(Quantize.of(precision))
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
    layers = [op for op in space.layers() if not any(fnmatchcase(op.name, p) for p in ignore)]
    for op in layers:
        check_precision(target, op, precision)
    chosen = _at_edges(layers, precision)
    return replace(space, precisions={n: (chosen.get(n, p[0]),) for n, p in space.precisions.items()})


def check_precision(target: Target, op: Op, precision: str) -> None:
    """Refuse a precision that a target runs a layer neither in nor in the int8 that holds it.

    Raises:
        ConfigError: it does not; the message lists what it runs.
    """
    bits, offered = Quantize.of(precision), target.precisions(op.kind)
    emulated = max(bits.weight_bits, bits.act_bits) <= 8 and "int8" in offered
    if precision not in offered and not emulated:
        raise ConfigError(
            f"{target.spec.name} does not run {op.kind} layers such as {op.name!r} at {precision}; "
            f"it runs {', '.join(offered)}"
        )


def _at_edges(layers: Sequence[Op], precision: str) -> dict[str, str]:
    """Precision of each layer; under fewer than eight bits the outermost, and those it cannot run at, keep EDGE."""
    low, wanted = re.fullmatch(r"w\d+a\d+", precision) is not None, Quantize.of(precision)
    ends = (layers[0].name, layers[-1].name) if layers else ()
    return {op.name: EDGE if low and (op.name in ends or not wanted.runs(op)) else precision for op in layers}
