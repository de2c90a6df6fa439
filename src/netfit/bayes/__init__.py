"""Networks and classifiers that know when they are wrong.

`Bayesian` gives a network Gaussian weights, `fit_svi` trains them, `to_pfp` computes mean and variance of its logits in
one pass, `uncertainty` and `predict` say what is uncertain and why. More in `netfit.bayes.svi`, `netfit.bayes.pfp`,
`netfit.bayes.quantized`, `netfit.bayes.repulsive` and `netfit.bayes.metrics`. `SVIClassifier`, `TANClassifier` and
`MDLDiscretizer` are scikit-learn estimators for tables; more of them in `netfit.bayes.tan`.
"""

from netfit.bayes._classifier import SVIClassifier
from netfit.bayes._gaussian import Gaussian
from netfit.bayes._predict import predict
from netfit.bayes._uncertainty import Uncertainty, uncertainty
from netfit.bayes.pfp import PFP, calibrate_pfp, to_pfp
from netfit.bayes.svi import Bayesian, fit_svi, load_posterior, load_pyro_guide, to_bayesian
from netfit.bayes.tan import MDLDiscretizer, TANClassifier

__all__ = [  # noqa: RUF022  PFP is a class, not a constant
    "Bayesian",
    "Gaussian",
    "MDLDiscretizer",
    "PFP",
    "SVIClassifier",
    "TANClassifier",
    "Uncertainty",
    "calibrate_pfp",
    "fit_svi",
    "load_posterior",
    "load_pyro_guide",
    "predict",
    "to_bayesian",
    "to_pfp",
    "uncertainty",
]
