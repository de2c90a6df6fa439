"""Bayesian layers, their training by variational inference, and posteriors that were trained elsewhere."""

from netfit.bayes.svi._fit import fit_svi
from netfit.bayes.svi._guide import load_posterior, load_pyro_guide, posterior
from netfit.bayes.svi._layers import (
    BayesConv1d,
    BayesConv2d,
    BayesLayer,
    BayesLinear,
    bayes_layers,
    kl_divergence,
    sampling,
)
from netfit.bayes.svi._technique import Bayesian, to_bayesian

__all__ = [
    "BayesConv1d",
    "BayesConv2d",
    "BayesLayer",
    "BayesLinear",
    "Bayesian",
    "bayes_layers",
    "fit_svi",
    "kl_divergence",
    "load_posterior",
    "load_pyro_guide",
    "posterior",
    "sampling",
    "to_bayesian",
]
