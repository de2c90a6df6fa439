"""Alerts against what was really wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netfit.detect._alerts import Alert
from netfit.detect._groups import labels_of
from netfit.detect.fleet._record import Fault, Recording

__all__ = ["Judged", "judge"]


@dataclass(frozen=True)
class Judged:
    """How well alerts tell faults.

    Args:
        found: (kind, node, seconds until an alert was raised, whether the node came first in it) of each fault; the
            seconds are NaN where none was raised in time.
        false_alerts: alerts that begin when nothing is wrong with the node they name first, and it did not just
            leave or join.
        node_seconds: that the recording watched.
    """

    found: tuple[tuple[str, str, float, bool], ...]
    false_alerts: tuple[Alert, ...]
    node_seconds: float

    @property
    def recall(self) -> float:
        """Share of the faults that an alert told in time."""
        return float(np.mean([delay == delay for _, _, delay, _ in self.found])) if self.found else float("nan")

    @property
    def node_first(self) -> float:
        """Share of those that named the right node first."""
        right = [first for _, _, delay, first in self.found if delay == delay]
        return float(np.mean(right)) if right else float("nan")

    @property
    def false_per_1000_node_seconds(self) -> float:
        """False alerts in 1000 seconds of one node."""
        return 1000 * len(self.false_alerts) / self.node_seconds


def judge(recording: Recording, alerts: Sequence[Alert], within_s: float = 15.0) -> Judged:
    """Compare the alerts of a recording with its faults.

    An alert belongs to a fault if it is raised soon enough, is about a moment during it, and names its node. The node
    that replaces a failed one joins in order.

    Args:
        recording: what happened.
        alerts: as `HybridDetector.detect` returned them.
        within_s: seconds an alert may take.
    """
    raised = sorted((a for a in alerts if a.end is None), key=lambda a: a.raised)
    named = [(a, _nodes(a)) for a in raised]
    found = []
    for fault in recording.faults:
        mine = [(a, nodes) for a, nodes in named if fault.node in nodes and _in_time(a, fault, within_s)]
        first = mine[0] if mine else None
        delay = first[0].raised - fault.start if first else float("nan")
        found.append((fault.kind, fault.node, delay, bool(first and first[1][0] == fault.node)))
    quiet = [a for a, nodes in named if not any(_explained(node, a.start, recording, within_s) for node in nodes[:1])]
    step = float(np.median(np.diff(recording.frame.times)))
    watched = np.isfinite(recording.frame.values).sum()
    metrics = len({labels_of(c)["metric"] for c in recording.frame.columns})
    return Judged(tuple(found), tuple(quiet), float(watched) / metrics * step)


def _nodes(alert: Alert) -> list[str]:
    return list(dict.fromkeys(labels_of(c.name).get("node", c.name) for c in alert.channels)) or [alert.subject]


def _in_time(alert: Alert, fault: Fault, within_s: float) -> bool:
    return fault.start <= alert.raised <= fault.start + within_s and alert.start <= fault.end


def _explained(node: str, moment: float, recording: Recording, within_s: float) -> bool:
    faults = any(f.node == node and f.start <= moment <= f.end + within_s for f in recording.faults)
    return faults or any(n == node and 0 <= moment - at <= within_s for n, _, at in recording.moves)
