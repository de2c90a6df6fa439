"""What each choice alone costs: one group pruned, or one site at low precision, and the change of the predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.compress._importance import Importance
from netfit.compress._importance import importance as score
from netfit.compress._plan import ChannelPlan
from netfit.compress._prune import Prune
from netfit.compress._slice import slice_model
from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantize, Technique, apply, calibrate
from netfit.train import logits, recalibrate

__all__ = ["Sensitivity", "sensitivity"]


@dataclass(frozen=True)
class Sensitivity:
    """One row: what was done to which group or site, and the damage.

    Attributes:
        name: channel group (for `Prune`) or site (for `Quantize`).
        technique: what was done there, and only there.
        kl: Kullback-Leibler divergence from the original's predictions to the changed network's, nats per sample.
    """

    name: str
    technique: Technique
    kl: float


def sensitivity(
    model: nn.Module,
    x: Tensor,
    plan: ChannelPlan,
    *,
    fractions: Sequence[float] = (0.75, 0.5, 0.25),
    precisions: Mapping[str, Sequence[Quantize]] | None = None,
    importance: Importance = "l1",
    progress: Callable[[int, int], None] | None = None,
) -> list[Sensitivity]:
    """Measure how much each free group, and each site asked for, disturbs the predictions when changed alone.

    Galen ("Towards Hardware-Specific Automatic Compression of Neural Networks", 2022) compares predictions right
    after the change. Here BatchNorm statistics are measured anew first: what is left is the damage retraining has to
    mend, and it ranks whole policies better.

    Args:
        model: a classifier, (n, ...) -> (n, classes); left untouched.
        x: training inputs (n, ...), a few hundred; no labels are needed.
        plan: the network's channel groups.
        fractions: of the channels to keep; counts that a group cannot tell apart are measured once.
        precisions: site name -> what to try there.
        importance: criterion for the channels to keep, if it needs no labels.
        progress: called with (rows done, rows in all) after each.

    Returns:
        Rows in the order of the plan, then of `precisions`.

    Raises:
        ConfigError: the predictions are not finite, or a fraction is not above 0 and at most 1.
    """
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ConfigError(f"fractions of channels to keep must be above 0 and at most 1, not {fraction}")
    reference = logits(model, x).log_softmax(1)
    if not reference.isfinite().all():
        raise ConfigError("the network's predictions are not finite: nothing can be compared with them")
    prunes = [(g, n) for g in plan.free for n in dict.fromkeys(map(g.fit, fractions))]
    rounds = [(site, q) for site, listed in (precisions or {}).items() for q in listed]
    scores = score(model, plan.free, importance) if prunes else {}

    def changed() -> Iterator[tuple[str, Technique, nn.Module]]:
        for group, count in prunes:
            yield group.name, Prune(keep=count), slice_model(model, plan, {group.name: count}, scores)
        for site, technique in rounds:
            rounded = apply(model, Policy({site: technique}), x[:1])
            calibrate(rounded, [x])
            yield site, technique, rounded

    rows: list[Sensitivity] = []
    for name, technique, network in changed():
        recalibrate(network, x)
        rows.append(Sensitivity(name, technique, _divergence(reference, logits(network, x))))
        if progress is not None:
            progress(len(rows), len(prunes) + len(rounds))
    return rows


def _divergence(reference: Tensor, changed: Tensor) -> float:
    """KL(reference || changed), mean over the batch; infinite when the changed network has no finite predictions."""
    kl = F.kl_div(changed.log_softmax(1), reference, reduction="batchmean", log_target=True)
    return max(0.0, kl.item()) if kl.isfinite() else torch.inf
