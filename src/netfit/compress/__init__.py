"""Compress a network: channel groups and their slicing, sensitivity, the search for a policy, retraining, the job."""

from ._families import family_policy
from ._groups import plan_channels
from ._importance import importance
from ._job import compress
from ._plan import ChannelGroup, ChannelPlan
from ._prune import Prune
from ._retrain import retrain
from ._search import Search
from ._sensitivity import Sensitivity, sensitivity
from ._settings import Settings
from ._slice import slice_model
from ._space import SearchSpace, search_space

__all__ = [
    "ChannelGroup",
    "ChannelPlan",
    "Prune",
    "Search",
    "SearchSpace",
    "Sensitivity",
    "Settings",
    "compress",
    "family_policy",
    "importance",
    "plan_channels",
    "retrain",
    "search_space",
    "sensitivity",
    "slice_model",
]
