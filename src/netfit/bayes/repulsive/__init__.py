"""Ensembles that share all but the last layer, and disagree where the data says nothing."""

from netfit.bayes.repulsive._fit import fit_repulsive
from netfit.bayes.repulsive._heads import RepulsiveHeads, repulsion_loss
from netfit.bayes.repulsive._inputs import Cutmix, PatchShuffle, Repulsion, UniformNoise

__all__ = [
    "Cutmix",
    "PatchShuffle",
    "Repulsion",
    "RepulsiveHeads",
    "UniformNoise",
    "fit_repulsive",
    "repulsion_loss",
]
