"""Which channel counts pay: found by timing the whole network, because a kernel's speed does not follow its channels.

OpenVINO's int8 convolutions take longer at 64 channels than at 80 in places, and a network at 75 % of its width can be
slower than at full width. Where that happens depends on processor, runtime and shapes, so it is measured.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import lcm

from ._cost import Meter
from ._evaluate import Evaluator
from ._space import SearchSpace

__all__ = ["useful_steps"]

MEASUREMENTS = 30
PARTS = (8, 4)  # of the full count, the finest that needs no more measurements
BLOCK = 4  # int8 dot products take four channels at a time
LEAST_SAVING = 0.01  # of the network's time: less is noise of a short measurement

Shape = tuple[int, int, tuple[int, ...]]


def useful_steps(space: SearchSpace, evaluator: Evaluator, gauge: Meter) -> dict[str, tuple[int, ...]]:
    """Channel counts that are faster than every larger one, in the context of the whole network.

    Groups with equal channel counts and image sizes are narrowed together: they call for the same kernels, and together
    they change the network's time by more than its noise. All layers have their narrowest precision. Where the machine
    is too busy to tell, if nothing pays, and in a network with too many different groups, the space's own steps stay.

    Args:
        space: groups and their steps so far.
        evaluator: builds the networks to time.
        gauge: times them.

    Returns:
        Group name -> channel counts, ascending, the full one last.
    """
    alike = _alike(space)
    counts = _counts(alike)
    if not counts:
        return dict(space.steps)
    start = space.uniform(1.0)
    full = gauge.cost(evaluator.build(start)).ratio
    found = dict(space.steps)
    for shape, groups in alike.items():
        if not counts[shape]:
            continue
        useful, kept, fastest = [shape[0]], full, full
        for count in counts[shape]:
            narrowed = replace(start, keep={**start.keep, **dict.fromkeys(groups, count)})
            cost = gauge.cost(evaluator.build(narrowed))
            if cost.noisy:
                pays = count in space.steps[groups[0]]
            else:
                pays = cost.ratio < min(fastest, (1 - LEAST_SAVING) * kept)
                kept, fastest = cost.ratio if pays else kept, min(fastest, cost.ratio)
            if pays:
                useful.insert(0, count)
        found |= dict.fromkeys(groups, tuple(useful))
    return found if any(len(steps) > 1 for steps in found.values()) else dict(space.steps)


def _alike(space: SearchSpace) -> dict[Shape, list[str]]:
    """Groups by channels, divisor and the image size of their first layer's result."""
    images = {op.name: op.outputs[0].shape[2:] for op in space.layers()}
    found: dict[Shape, list[str]] = {}
    for group in space.plan.free:
        image = images.get(group.layers[0], ()) if group.layers else ()
        found.setdefault((group.size, group.divisor, image), []).append(group.name)
    return found


def _counts(alike: Mapping[Shape, list[str]]) -> dict[Shape, list[int]]:
    """Counts to time of each shape, descending; nothing when even the coarsest choice takes too long."""
    for parts in PARTS:
        counts = {}
        for size, divisor, image in alike:
            unit = lcm(divisor, BLOCK) if size >= 2 * BLOCK else divisor
            exact = {size * i / parts for i in range(1, parts)}
            counts[size, divisor, image] = sorted((int(n) for n in exact if n % unit == 0), reverse=True)
        if sum(map(len, counts.values())) < MEASUREMENTS:
            return counts
    return {}
