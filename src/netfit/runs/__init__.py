"""Run directories: everything one job produced, and from which a killed job goes on."""

from ._owner import is_alive, this_process
from ._run import Run

__all__ = ["Run", "is_alive", "this_process"]
