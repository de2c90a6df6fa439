"""The estimators as scikit-learn expects them, and the answers to bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import CategoricalNB
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from netfit.bayes import MDLDiscretizer, TANClassifier
from netfit.bayes.tan._structure import mutual_information
from netfit.errors import ConfigError


@parametrize_with_checks(
    [
        TANClassifier(),
        TANClassifier(structure="naive", n_bins=4),
        TANClassifier(structure="learned", loss="hybrid", lam=1.0, gamma=1.0, epochs=4, random_state=0),
        TANClassifier(bits=(3, 3), epochs=3, lr=0.01, random_state=0),
        MDLDiscretizer(),
    ]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 3.0]), st.integers(2, 5))
def test_the_naive_structure_is_scikit_learns_categorical_nb(seed, alpha, classes):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, 4)
    every = np.stack([np.arange(6) % r for r in sizes], axis=1)  # each value occurs, so both count the same categories
    x = np.concatenate([every, rng.integers(0, sizes, (60, 4))])
    y = np.concatenate([np.arange(6) % classes, rng.integers(0, classes, 60)])
    ours = TANClassifier(structure="naive", alpha=alpha).fit(x, y)
    theirs = CategoricalNB(alpha=alpha).fit(x, y)
    np.testing.assert_allclose(ours.predict_log_proba(x), theirs.predict_log_proba(x), rtol=0, atol=1e-9)


def test_mutual_information_by_its_definition():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 500)
    a = rng.integers(0, 4, 500)
    codes = np.stack([a, (a + y + (rng.random(500) < 0.2)) % 4, rng.integers(0, 2, 500)], axis=1)
    found = mutual_information(codes, y, np.array([4, 4, 2]))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        table = np.zeros((4, 4, 3))
        np.add.at(table, (codes[:, i], codes[:, j], y), 1 / 500)
        p_c, p_ic, p_jc = table.sum((0, 1)), table.sum(1), table.sum(0)
        some = table > 0
        ratio = (table * p_c)[some] / (p_ic[:, None] * p_jc[None])[some]
        expected = (table[some] * np.log(ratio)).sum()
        assert found[i, j] == pytest.approx(expected, abs=1e-12)
        assert found[j, i] == found[i, j]


def test_the_tree_finds_a_chain():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 4, 2000)
    columns = [first]
    for _ in range(4):
        columns.append(np.where(rng.random(2000) < 0.8, columns[-1], rng.integers(0, 4, 2000)))
    order = [3, 0, 4, 1, 2]  # column k of x is link order[k] of the chain
    x = np.stack([columns[k] for k in order], axis=1)
    parents = TANClassifier().fit(x, rng.integers(0, 2, 2000)).parents_
    edges = {frozenset((order[i], order[p])) for i, p in enumerate(parents) if p >= 0}
    assert edges == {frozenset((k, k + 1)) for k in range(4)}


def test_works_inside_scikit_learns_tools():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    pipe = make_pipeline(MDLDiscretizer(), TANClassifier(handle_unknown="uniform"))
    assert cross_val_score(pipe, x, y, cv=3).shape == (3,)
    search = GridSearchCV(TANClassifier(n_bins=4), {"structure": ["naive", "chow-liu"]}, cv=3).fit(x, y)
    assert search.best_params_ == {"structure": "chow-liu"}  # the classes are a product of two features
    assert search.best_score_ > 0.8


def test_missing_values_are_a_value():
    x = np.array([[0, np.nan], [0, 1], [1, np.nan], [1, 1]] * 5, dtype=float)
    y = np.isnan(x[:, 1]).astype(int)
    assert TANClassifier().fit(x, y).score(x, y) == 1
    cut = MDLDiscretizer().fit(np.array([[0.1], [0.2], [np.nan]] * 9), [0, 0, 1] * 9)
    assert cut.transform([[0.15], [np.nan]]).tolist() == [[0], [1]]


def test_unknown_values():
    x, y = np.array([[0, 5], [1, 7], [0, 7], [1, 5]] * 4), np.array([0, 1, 0, 1] * 4)
    with pytest.raises(ConfigError, match=r"value 6 of feature 1 in row 1 .* handle_unknown='uniform'"):
        TANClassifier().fit(x, y).predict([[0, 5], [1, 6]])
    quiet = TANClassifier(structure="naive", handle_unknown="uniform").fit(x, y)
    alone = TANClassifier(structure="naive").fit(x[:, :1], y)
    np.testing.assert_allclose(quiet.predict_proba([[0, 6], [1, 6]]), alone.predict_proba([[0], [1]]))
    tree = TANClassifier(handle_unknown="uniform").fit(x, y)
    np.testing.assert_allclose(tree.predict_proba([[9, 9]]), [[0.5, 0.5]])


def test_constant_features_say_nothing():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    x = np.stack([(y + rng.integers(0, 2, 200)) % 3, np.full(200, 4)], axis=1)
    np.testing.assert_allclose(
        TANClassifier().fit(x, y).predict_proba(x), TANClassifier().fit(x[:, :1], y).predict_proba(x[:, :1])
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"structure": "tree"}, "structure='tree'"),
        ({"loss": "hybird"}, "did you mean 'hybrid'"),
        ({"handle_unknown": None}, "handle_unknown=None"),
        ({"bits": (9, 9)}, r"bits=\(9, 9\).* 1 to 8"),
        ({"n_bins": 1}, "n_bins=1"),
        ({"n_bins": "kmeans"}, "n_bins='kmeans'"),
        ({"alpha": -1}, "alpha=-1"),
        ({"n_bins": None}, "feature 0 holds fractions such as 0.5.* MDLDiscretizer"),
    ],
)
def test_bad_settings_are_named(settings, says):
    with pytest.raises(ConfigError, match=says):
        TANClassifier(**settings).fit([[0.5], [1.5], [2.0]], [0, 1, 0])


def test_bad_data_is_named():
    with pytest.raises(ConfigError, match="one class only"):
        TANClassifier().fit([[1], [2]], [3, 3])
    many = np.arange(2**16 + 1)[:, None]
    with pytest.raises(ConfigError, match=r"feature 0 has 65537 values: allowed are 65536"):
        TANClassifier().fit(many, many[:, 0] % 2)
    with pytest.raises(ConfigError, match=r"9000 values together: .* structure='naive'"):
        TANClassifier().fit(np.tile(many[:4500], 2), many[:4500, 0] % 2)
    with pytest.raises(ValueError, match="inf"):
        TANClassifier().fit([[np.inf], [2]], [0, 1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_cuts_lie_between_values_and_none_is_found_in_noise(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, 1))
    edges = MDLDiscretizer().fit(x, (x[:, 0] > 0.3) ^ (x[:, 0] > 1)).edges_[0]
    assert len(edges) == 2
    assert abs(edges - [0.3, 1]).max() < 0.2
    assert not np.isin(edges, x).any()
    noise = [len(MDLDiscretizer().fit(x, rng.integers(0, 2, 400)).edges_[0]) for _ in range(5)]
    assert sum(noise) <= 2
