"""Pipeline-parallel training: schedules as tables, simulated with their messages, proven optimal, run for real."""

from ._compare import Comparison, compare
from ._costs import StageCosts
from ._gpt import Peak, gpt
from ._make import families, make
from ._network import Network
from ._optimize import optimize
from ._replay import agreement, replay
from ._schedule import Op, Schedule
from ._simulate import simulate
from ._timeline import Timeline

__all__ = [
    "Comparison",
    "Network",
    "Op",
    "Peak",
    "Schedule",
    "StageCosts",
    "Timeline",
    "agreement",
    "compare",
    "families",
    "gpt",
    "make",
    "optimize",
    "replay",
    "simulate",
]
