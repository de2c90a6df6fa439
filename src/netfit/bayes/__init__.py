"""Networks and classifiers that know when they are wrong.

`TANClassifier` and `MDLDiscretizer` are scikit-learn estimators for tables; more of them in `netfit.bayes.tan`.
"""

from netfit.bayes.tan import MDLDiscretizer, TANClassifier

__all__ = ["MDLDiscretizer", "TANClassifier"]
