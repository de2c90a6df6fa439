"""Several microphones in, one clean voice out: a small mask network, and beamformers made from its mask.

`enhance` takes a recording, `StreamingEnhancer` a stream in constant memory. `functional` holds the beamformers on
covariances. `Scenes` simulates rooms, `train` makes a mask network of 1 to 32 bits from them, `PackedNetwork` runs it
in whole numbers, `evaluate` measures what it brings, and `check_microphones` finds the ones that do not do their work.
"""

from . import functional
from ._enhance import Enhanced, enhance
from ._estimator import MaskEstimator, policy_of
from ._health import MicrophoneFault, check_microphones
from ._model import load_model, pretrained, save_model
from ._packed import PackedNetwork
from ._scenes import Scene, SceneFolder, Scenes
from ._stream import StreamingEnhancer
from ._train import train

__all__ = [
    "Enhanced",
    "MaskEstimator",
    "MicrophoneFault",
    "PackedNetwork",
    "Scene",
    "SceneFolder",
    "Scenes",
    "StreamingEnhancer",
    "check_microphones",
    "enhance",
    "functional",
    "load_model",
    "policy_of",
    "pretrained",
    "save_model",
    "train",
]
