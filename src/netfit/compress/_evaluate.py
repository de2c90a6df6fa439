"""How good is a candidate before any training: build it, refresh its statistics, score it on held-out images."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from netfit.errors import JobError
from netfit.surgery import Quantize, calibrate
from netfit.train import logits, recalibrate

from ._correct import correct, moments, needs_correction
from ._importance import importance
from ._slice import keep_best, kept_axes, slice_model
from ._space import Candidate, SearchSpace

__all__ = ["Evaluator"]

CALIBRATION_BATCH = 256


class Evaluator:
    """Builds candidates and scores them without training (rung L1 of the fidelity ladder).

    BatchNorm statistics are recomputed for the smaller network before it is scored (in a network without BatchNorm,
    means and deviations are restored): without that the ranking of candidates is that of their broken statistics, not
    of their weights.

    Args:
        model: the trained, uncompressed network.
        space: what a candidate chooses from.
        calibration: training inputs for BatchNorm statistics and activation scales (n, ...).
        held_out: inputs and labels the score is measured on; never those of the test split.
        scores: importance of the channels (size,) of some groups; by their weights' L1 norm in the others.
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        calibration: Tensor,
        held_out: tuple[Tensor, Tensor],
        scores: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.space = model.eval(), space
        self.calibration, self.held_out = calibration, held_out
        self._moments = moments(model, calibration[:CALIBRATION_BATCH]) if needs_correction(model) else None
        self._scores = (importance(model, space.plan.free) if space.plan.free else {}) | dict(scores or {})

    def shape(self, candidate: Candidate) -> nn.Module:
        """The candidate with the trained weights and stale statistics: enough to time it."""
        small, _ = self._sliced(candidate)
        self._quantized(small, candidate)
        return small.eval()

    def build(self, candidate: Candidate) -> nn.Module:
        """The candidate as a network with the trained weights, refreshed statistics and calibrated scales."""
        small, picks = self._sliced(candidate)
        if picks and self._moments is not None:
            axes = kept_axes(self.model, ((self.space.plan[g], pick) for g, pick in picks.items()))
            kept = {name.removesuffix(".weight"): index for (name, dim, _), index in axes.items() if dim == 0}
            correct(small, self._moments, kept, self.calibration[:CALIBRATION_BATCH])
        elif picks:
            recalibrate(small, self.calibration)
        if self._quantized(small, candidate):
            calibrate(small, self.calibration.split(CALIBRATION_BATCH))
        return small.eval()

    def _sliced(self, candidate: Candidate) -> tuple[nn.Module, dict[str, Tensor]]:
        """The smaller network, and the channels that stayed in each group that lost some."""
        plan = self.space.plan
        cut = {g: n for g, n in candidate.keep.items() if n < plan[g].size}
        picks = {g: keep_best(plan[g], n, self._scores[g]) for g, n in cut.items()}
        return slice_model(self.model, plan, picks, self._scores), picks

    def _quantized(self, model: nn.Module, candidate: Candidate) -> bool:
        chosen = self.space.quantizers(candidate)
        if chosen:
            Quantize.install(model, self.space.workload, chosen)
        return bool(chosen)

    def score(self, model: nn.Module) -> float:
        """Share of the held-out inputs the network classifies as labelled.

        Raises:
            JobError: it returns values that are not finite.
        """
        x, y = self.held_out
        with torch.no_grad():
            out = logits(model, x)
        if not bool(torch.isfinite(out).all()):
            raise JobError("the candidate returns values that are not finite")
        return float((out.argmax(1) == y).double().mean())
