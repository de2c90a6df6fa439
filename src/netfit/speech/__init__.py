"""Several microphones in, one clean voice out: a small mask network, and beamformers made from its mask.

`enhance` takes a recording, `StreamingEnhancer` a stream in constant memory. `functional` holds the beamformers on
covariances. `Scenes` simulates rooms, `train` makes a mask network of 1 to 32 bits from them, `PackedNetwork` runs it
in whole numbers, `scores` measures what it brings, and `check_microphones` finds the ones that do not do their work.
"""

from . import files, functional, scores
from ._enhance import Enhanced, enhance
from ._estimator import MaskEstimator
from ._health import MicrophoneFault, check_microphones
from ._model import load_model, save_model
from ._packed import PackedNetwork
from ._scenes import SceneFolder, Scenes
from ._stream import StreamingEnhancer
from ._train import train

__all__ = [
    "Enhanced",
    "MaskEstimator",
    "MicrophoneFault",
    "PackedNetwork",
    "SceneFolder",
    "Scenes",
    "StreamingEnhancer",
    "check_microphones",
    "enhance",
    "files",
    "functional",
    "load_model",
    "save_model",
    "scores",
    "train",
]
