"""Systolic arrays that are not built yet: exact cycles and moves in closed form, proved by a register-level simulator.

`SystolicArray` is the target; `gemm_cost` counts single products, `simulate` runs one register by register, and
`sweep` evaluates whole families of arrays on several networks.
"""

from ._array import SystolicArray
from ._config import EnergyModel, SystolicConfig
from ._cost import GemmCost, gemm_cost
from ._explain import Explanation
from ._simulator import Simulation, simulate
from ._sweep import SweepResult, sweep

__all__ = [
    "EnergyModel",
    "Explanation",
    "GemmCost",
    "Simulation",
    "SweepResult",
    "SystolicArray",
    "SystolicConfig",
    "gemm_cost",
    "simulate",
    "sweep",
]
