"""Compress a network: find its channel groups, cut them, measure what that costs."""

from netfit.compress._groups import plan_channels
from netfit.compress._importance import importance
from netfit.compress._plan import ChannelGroup, ChannelPlan
from netfit.compress._prune import Prune
from netfit.compress._sensitivity import Sensitivity, sensitivity
from netfit.compress._slice import slice_model

__all__ = [
    "ChannelGroup",
    "ChannelPlan",
    "Prune",
    "Sensitivity",
    "importance",
    "plan_channels",
    "sensitivity",
    "slice_model",
]
