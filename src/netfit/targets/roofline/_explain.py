"""Why an operator takes as long as it does: its time beside every bound of the machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from netfit.errors import ConfigError

from ._nests import Work
from ._peaks import Peaks

_EXPLAINED = 0.6  # of the time; below it the largest bound is not the reason
_WORDS = {
    "compute": "arithmetic", "latency": "sums that wait for each other", "l1": "reads from L1", "l2": "traffic with L2",
    "l3": "traffic with L3", "dram": "traffic with main memory",
}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """One operator beside the bounds of a machine.

    Attributes:
        name: of the operator.
        measured_s: seconds it took.
        bounds: least seconds by resource: ``compute``, ``latency``, and reads from each level.
        bound: the resource that needs longest.
        predicted_s: its seconds; no implementation of this nest is faster.
        share: ``predicted_s`` as part of ``measured_s``.
        text: that in a sentence.
    """

    name: str
    measured_s: float
    bounds: Mapping[str, float]
    bound: str
    predicted_s: float
    share: float
    text: str


def bounds(work: Work, peaks: Peaks) -> dict[str, float]:
    """Least seconds of a piece of work on each resource of a machine.

    Args:
        work: from `blocked`, `plain` or `least`.
        peaks: of the machine.
    """
    units = peaks.ops.get(work.precision, {})
    rate = units.get(work.unit or "", peaks.best(work.precision))
    per_instruction = 2 * peaks.vector_bytes / 4 / max(peaks.ops["fp32"].values())  # as fast as multiply-accumulates
    found = {"compute": work.operations / rate + work.instructions * per_instruction}
    if work.chain:
        found["latency"] = work.chain * peaks.chain_s
    found["l1"] = work.loads * peaks.vector_bytes / peaks.read["l1"]
    levels = list(peaks.read)
    for cache, behind in pairwise(levels):
        moved = [nest.traffic(peaks.caches[cache]) for nest in work.nests]
        found[behind] = sum(t.read / peaks.read[behind] + t.write / peaks.write[behind] for t in moved)
    return found


def explain(name: str, work: Work, measured_s: float, peaks: Peaks) -> Explanation:
    """Name the bound of a measured operator.

    Args:
        name: of the operator.
        work: what it does.
        measured_s: seconds it took, as CPU time of one thread.
        peaks: of the machine it ran on.

    Raises:
        ConfigError: the time is not positive.
    """
    if not 0 < measured_s < float("inf"):
        raise ConfigError(f"measured_s = {measured_s} of {name}: a time is positive")
    found = bounds(work, peaks)
    bound = max(found, key=lambda key: found[key])
    share = found[bound] / measured_s
    beside = ", ".join(f"{found[key] / measured_s:.0%} of {_WORDS[key]}" for key in found if key != bound)
    text = f"{share:.0%} of the time is the bound of {_WORDS[bound]}; beside it {beside}"
    if share < _EXPLAINED:
        text += f"; {1 - share:.0%} is not explained by any bound"
    return Explanation(name, measured_s, found, bound, found[bound], share, text)
