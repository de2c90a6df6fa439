"""How a choice is searched: a study evaluates slowly and survives kills, a sweep evaluates millions of points."""

from ._cluster import ray_cluster
from ._greedy import Visited, greedy
from ._memo import Memo
from ._pareto import pareto_mask
from ._records import Evaluation, Goal, Row, Trial
from ._space import Categorical, Dimension, Float, IntChoice
from ._study import Study
from ._sweep import Sweep

__all__ = [
    "Categorical",
    "Dimension",
    "Evaluation",
    "Float",
    "Goal",
    "IntChoice",
    "Memo",
    "Row",
    "Study",
    "Sweep",
    "Trial",
    "Visited",
    "greedy",
    "pareto_mask",
    "ray_cluster",
]
