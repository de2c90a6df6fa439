"""Finding a fast configuration in few measurements, also where most configurations do not run.

A `Space` says why a point is invalid before anything is measured; a tuner chooses; a runner tries, and whatever
happens is a record; a `Study` puts them together and survives kills.
"""

from .._space import Space
from ._records import Outcome, Record, Records
from ._runners import LocalRunner, RemoteRunner, serve
from ._spaces import RecordedRunner, VtaRunner, recorded_space, vta_space
from ._study import Runner, Study
from ._tuners import ModelTuner, RandomTuner, Tuner, make

__all__ = [
    "LocalRunner",
    "ModelTuner",
    "Outcome",
    "RandomTuner",
    "Record",
    "RecordedRunner",
    "Records",
    "RemoteRunner",
    "Runner",
    "Space",
    "Study",
    "Tuner",
    "VtaRunner",
    "make",
    "recorded_space",
    "serve",
    "vta_space",
]
