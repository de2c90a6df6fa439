"""Training, evaluation and BatchNorm recalibration of classifiers; deterministic, resumable."""

from ._augment import AUGMENTATIONS
from ._evaluate import evaluate, logits, recalibrate
from ._fit import History, fit

__all__ = ["AUGMENTATIONS", "History", "evaluate", "fit", "logits", "recalibrate"]
