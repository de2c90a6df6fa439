"""How good uncertainties are: scores of predictions, curves of risk, separation of foreign data."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from netfit.errors import ConfigError, did_you_mean

from ._uncertainty import Uncertainty

__all__ = ["ambiguity_auroc", "evaluate", "ood_auroc", "reliability", "risk_coverage"]

Score = Literal["epistemic", "total", "var"]
_BINS = 15


def evaluate(u: Uncertainty, y: Tensor) -> dict[str, float]:
    """Scores of predictions with known labels.

    Args:
        u: predictions of n samples.
        y: labels, int64 (n,).

    Returns:
        acc; nll in nats; brier (mean over samples of the sum over classes, 0 to 2); ece15, the calibration error over
        15 equal bins of confidence; aurc, the mean error while the least sure are left out, and eaurc, how much of it
        better uncertainties would save ("Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", Geifman
        et al., 2019); auroc_error, how well the total uncertainty finds the errors (NaN without errors).

    Raises:
        ConfigError: there are no labels, or another number than of predictions.

    >>> u = Uncertainty(torch.tensor([[0.9, 0.1], [0.4, 0.6]]), *torch.rand(4, 2))
    >>> round(evaluate(u, torch.tensor([0, 1]))["nll"], 3)
    0.308
    """
    _check(u, y)
    wrong = (u.prediction != y).double()
    p = u.probs.double()
    aurc = float(risk_coverage(u, y)[1].mean())
    rate = float(wrong.mean())
    best = rate + (1 - rate) * math.log1p(-rate) if rate < 1 else 1.0
    return {
        "acc": 1 - rate,
        "nll": float(-p.gather(1, y[:, None]).clamp_min(1e-30).log().mean()),
        "brier": float((p - torch.nn.functional.one_hot(y, p.shape[1])).square().sum(1).mean()),
        "ece15": _calibration_error(u, y),
        "aurc": aurc,
        "eaurc": aurc - best,
        "auroc_error": _auroc(wrong, u.total),
    }


def ood_auroc(inside: Uncertainty, outside: Uncertainty, score: Score = "epistemic") -> float:
    """Area under the ROC curve of telling foreign inputs from the network's own.

    Args:
        inside: predictions on the kind of data the network was trained on.
        outside: on foreign data.
        score: ``"epistemic"``, ``"total"`` or ``"var"`` (mean variance of the logits).

    Raises:
        ConfigError: an unknown score, or an empty side.
    """
    if score not in get_args(Score):
        raise ConfigError(f"score={score!r}; {did_you_mean(score, get_args(Score))}")
    return _separation(getattr(inside, score), getattr(outside, score))


def ambiguity_auroc(clear: Uncertainty, ambiguous: Uncertainty) -> float:
    """Area under the ROC curve of telling ambiguous inputs from clear ones by their aleatoric uncertainty."""
    return _separation(clear.aleatoric, ambiguous.aleatoric)


def risk_coverage(u: Uncertainty, y: Tensor) -> tuple[Tensor, Tensor]:
    """Share of samples answered, surest first, and the share of wrong answers among them; (n,) each."""
    _check(u, y)
    order = u.total.argsort(stable=True)
    wrong = (u.prediction != y)[order].double()
    count = torch.arange(1, len(y) + 1, dtype=torch.float64)
    return count / len(y), wrong.cumsum(0) / count


def reliability(u: Uncertainty, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean confidence, accuracy and number of samples of the bins of confidence that hold any."""
    _check(u, y)
    confidence = u.probs.amax(1).double()
    number = (confidence * _BINS).long().clamp(0, _BINS - 1)
    count = torch.bincount(number, minlength=_BINS).double()
    sums = [torch.bincount(number, weights=w, minlength=_BINS) for w in (confidence, (u.prediction == y).double())]
    held = count > 0
    return sums[0][held] / count[held], sums[1][held] / count[held], count[held]


def _calibration_error(u: Uncertainty, y: Tensor) -> float:
    confidence, accuracy, count = reliability(u, y)
    return float(((confidence - accuracy).abs() * count).sum() / count.sum())


def _separation(low: Tensor, high: Tensor) -> float:
    if not len(low) or not len(high):
        raise ConfigError(f"{len(low)} samples inside and {len(high)} outside: give some of each")
    return _auroc(torch.cat([torch.zeros(len(low)), torch.ones(len(high))]), torch.cat([low, high]))


def _auroc(truth: Tensor, score: Tensor) -> float:
    from sklearn.metrics import roc_auc_score

    if float(truth.min()) == float(truth.max()):
        return math.nan
    return float(roc_auc_score(truth.numpy(), score.double().numpy()))


def _check(u: Uncertainty, y: Tensor) -> None:
    if len(u) != len(y) or len(y) == 0:
        raise ConfigError(f"{len(u)} predictions for {len(y)} labels: give as many, and some")
