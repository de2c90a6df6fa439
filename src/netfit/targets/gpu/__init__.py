"""GPUs that are not here: measured kernels of others, predictors trained on them, and a target that uses both.

`KernelDB` holds measured launches, `KernelPredictor` learns from them, `evaluate` says how far to trust it, and `GPU`
is the target. Nothing measured ships with netfit: without a predictor `GPU` gives bounds.
"""

from ._db import KernelDB
from ._devices import GPUSpec, device, devices
from ._evaluate import Evaluation, Score, evaluate
from ._features import Samples
from ._launch import Launch
from ._predictor import Interval, KernelPredictor
from ._ptx import ptx_counts, ptx_features
from ._target import GPU, KernelExplanation

__all__ = [
    "GPU",
    "Evaluation",
    "GPUSpec",
    "Interval",
    "KernelDB",
    "KernelExplanation",
    "KernelPredictor",
    "Launch",
    "Samples",
    "Score",
    "device",
    "devices",
    "evaluate",
    "ptx_counts",
    "ptx_features",
]
