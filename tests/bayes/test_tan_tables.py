"""Trained, quantized and exported tables; figures on the published splits."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit import data
from netfit.bayes import TANClassifier
from netfit.bayes.tan import Split, bayesian_points, c_source, mlp_points
from netfit.bayes.tan._train import Loss
from netfit.errors import ConfigError, DataNotFound
from netfit.kernels import compile_c

STRICT = ("-Wall", "-Wextra", "-Werror", "-std=c99", "-pedantic")


def split(name):
    try:
        train, test = data.load(name, "train"), data.load(name, "test")
    except DataNotFound as e:
        pytest.skip(str(e))
    return Split(train.x, train.y, test.x, test.y)


def toy(seed, n=300, classes=3, sizes=(4, 1, 3, 5)):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = np.stack([(rng.integers(0, r, n) * (rng.random(n) < 0.5) + y) % r for r in sizes], axis=1)
    return x, y


def c_predictions(model, x, packed):
    source = c_source(model, packed=packed)
    kind = np.uint8 if "int tan_predict(const uint8_t" in source else np.uint16
    codes = model.encode(x)
    codes = np.ascontiguousarray(np.where(codes < 0, np.iinfo(kind).max, codes), kind)
    predict = compile_c(source, "tan", STRICT).tan_predict
    return np.array([predict(row.ctypes.data_as(ctypes.c_void_p)) for row in codes])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bits", [(1, 0), (4, -2), (2, 2), (3, 4)])
@pytest.mark.parametrize("structure", ["naive", "chow-liu"])
def test_the_c_code_agrees_on_every_row(structure, bits, packed):
    x, y = toy(0)
    model = TANClassifier(structure, bits=bits, epochs=2, random_state=0).fit(x, y)
    assert (model.classes_[c_predictions(model, x, packed)] == model.predict(x)).all()


def test_the_c_code_only_adds_and_loads():
    x, y = toy(0)
    body = c_source(TANClassifier(bits=(3, 1), epochs=0).fit(x, y)).split("int tan_predict")[1]
    body = body.replace("const uint8_t *x", "")
    assert not set(body) & set("*/%&|^~?")
    assert "<<" not in body
    assert ">>" not in body


def test_unknown_values_in_c():
    x, y = toy(1)
    strange = x.copy()
    strange[::3, 0] = 99
    strange[::5, 3] = 98
    quiet = TANClassifier(bits=(3, 1), epochs=0, handle_unknown="uniform").fit(x, y)
    assert (quiet.classes_[c_predictions(quiet, strange, False)] == quiet.predict(strange)).all()
    loud = TANClassifier(bits=(3, 1), epochs=0).fit(x, y)
    known = np.array([[0, 0, 0, 0], [200, 0, 0, 0]], np.uint8)
    predict = compile_c(c_source(loud), "tan", STRICT).tan_predict
    assert predict(known[0].ctypes.data_as(ctypes.c_void_p)) >= 0
    assert predict(known[1].ctypes.data_as(ctypes.c_void_p)) == -1


def test_export_needs_integer_tables(tmp_path):
    x, y = toy(0)
    with pytest.raises(ConfigError, match="floating point: fit with bits"):
        TANClassifier().fit(x, y).export_c(tmp_path / "t.c")
    model = TANClassifier(bits=(3, 1), epochs=0).fit(x, y)
    with pytest.raises(ConfigError, match="no C identifier"):
        model.export_c(tmp_path / "t.c", name="my tan")
    model.export_c(tmp_path / "t.c", name="mine")
    assert "int mine_predict(" in Path(tmp_path / "t.c").read_text()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (4, -2), (2, 4)]))
def test_stored_tables_lie_on_the_grid(seed, bits):
    x, y = toy(seed, n=80)
    model = TANClassifier(bits=bits, epochs=1, random_state=0).fit(x, y)
    step = 2.0 ** -bits[1]
    for table in (*model.tables_, model.class_log_prior_):
        codes = -table / step
        np.testing.assert_array_equal(codes, codes.round())
        assert codes.min() >= 0
        assert codes.max() <= 2 ** sum(bits) - 1


def test_trained_tables_are_distributions():
    x, y = toy(2)
    model = TANClassifier(loss="hybrid", epochs=3, random_state=0).fit(x, y)
    for table in model.tables_:
        np.testing.assert_allclose(np.exp(table).sum(axis=1), 1, atol=1e-6)
    assert model.n_parameters_ == sum(t.size for t in model.tables_)


def test_the_loss_by_hand_and_its_gradient():
    joint = torch.tensor([[-1.0, -2.0, -4.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0])
    own, others = -1.0, np.array([-2.0, -4.0])
    margin = np.log(np.exp(10 * (1.5 - own + others)).sum()) / 10
    assert Loss(7.0, 1.5, 10.0)(joint, y).item() == pytest.approx(1 + 7 * margin)
    assert Loss(7.0, 0.5, 10.0)(joint, y).item() == pytest.approx(1)  # the margin is kept: nothing to pay
    assert torch.autograd.gradcheck(lambda t: Loss(7.0, 1.5, 2.0)(t, y), joint)


def test_the_same_seed_gives_the_same_classifier():
    x, y = toy(3)
    settings = {"structure": "learned", "loss": "hybrid", "epochs": 4, "random_state": 5}
    a, b = (TANClassifier(**settings).fit(x, y) for _ in range(2))
    assert (a.parents_ == b.parents_).all()
    assert all((s == t).all() for s, t in zip(a.tables_, b.tables_, strict=True))


def test_a_price_on_size_leads_back_to_the_naive_structure():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 600)
    b = rng.integers(0, 4, 600)
    x, y = np.stack([a, b], axis=1), (a + b) % 2
    found = [
        TANClassifier(structure="learned", epochs=10, size_penalty=price, random_state=0).fit(x, y)
        for price in (0.0, 10.0)
    ]
    assert [model.n_parameters_ for model in found] == [2 * (4 + 16), 2 * (4 + 4)]
    assert found[0].score(x, y) == 1


def test_letter_as_published():
    letter = split("discrete:letter")
    naive = TANClassifier(structure="naive").fit(letter.x, letter.y)
    assert naive.n_parameters_ == 3796
    assert 100 * (1 - naive.score(letter.x_test, letter.y_test)) == pytest.approx(25.89, abs=0.01)
    tree = TANClassifier().fit(letter.x, letter.y)
    assert 100 * (1 - tree.score(letter.x_test, letter.y_test)) < 15.5
    rounded = TANClassifier(loss="hybrid", lam=110, gamma=18, bits=(4, -2), epochs=4, random_state=0)
    rounded.fit(letter.x, letter.y)
    assert 100 * (1 - rounded.score(letter.x_test, letter.y_test)) < 20
    assert (c_predictions(rounded, letter.x_test, True) == rounded.predict(letter.x_test)).all()


def test_both_families_on_one_table():
    part = data.load("digits")
    x = part.x.reshape(len(part), -1).astype(float)
    table = Split(x[:1000], part.y[:1000], x[1000:], part.y[1000:])
    (tan, model), *_ = bayesian_points(table, penalties=[1e-2], bits=[(3, 1)], epochs=5, seed=0, lam=10.0)
    (mlp,) = mlp_points(table, hidden=[16], precisions=["w4a8"], epochs=10, seed=0)
    assert tan.error < 0.25
    assert tan.parameters == model.n_parameters_ + 10
    assert tan.bytes == -(-tan.parameters * 4 // 8)
    assert tan.operations == 64 * 10
    assert mlp.error < 0.25
    assert mlp.operations == 64 * 16 + 16 * 10
    assert mlp.bytes == mlp.operations // 2 + 4 * 26
