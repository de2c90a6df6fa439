"""Bayesian-network classifiers of a few hundred bytes: integer additions and table look-ups, no multiplication."""

from netfit.bayes.tan._classifier import TANClassifier
from netfit.bayes.tan._discretize import MDLDiscretizer
from netfit.bayes.tan._export import c_source
from netfit.bayes.tan._front import Point, Split, bayesian_points, measured, mlp_points

__all__ = [
    "MDLDiscretizer",
    "Point",
    "Split",
    "TANClassifier",
    "bayesian_points",
    "c_source",
    "measured",
    "mlp_points",
]
