"""The Bayesian network as a scikit-learn estimator."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from netfit.bayes import SVIClassifier
from netfit.errors import ConfigError

X, Y = load_iris(return_X_y=True)


@parametrize_with_checks([SVIClassifier((8,), epochs=12, method="svi", n_samples=4, random_state=0)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def test_it_learns_and_both_methods_agree():
    one = SVIClassifier((20,), epochs=25, random_state=0).fit(X, Y)
    assert one.score(X, Y) > 0.9
    many = SVIClassifier((20,), epochs=25, method="svi", n_samples=200, random_state=0).fit(X, Y)
    assert np.abs(one.predict_proba(X) - many.predict_proba(X)).max() < 0.1
    far = one.uncertainty(X * np.array([1, 1, -3, 5]))
    assert far.var.mean() > 3 * one.uncertainty(X).var.mean()


def test_an_answer_does_not_depend_on_its_batch():
    model, again = (SVIClassifier((8,), epochs=3, random_state=0).fit(X, Y) for _ in range(2))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_allclose(model.predict_proba(X[:1]), model.predict_proba(X)[:1], atol=1e-12)


def test_cross_validation():
    assert cross_val_score(SVIClassifier((16,), random_state=0), X, Y, cv=3).mean() > 0.85


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": (0,)}, r"hidden=\(0,\)"),
        ({"method": "mean"}, "method='mean'"),
        ({"prior_std": -1}, "prior_std=-1"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SVIClassifier(**settings).fit(X, Y)


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="one class only"):
        SVIClassifier().fit(X, np.zeros(len(X)))
