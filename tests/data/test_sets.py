"""The real data sets; each test skips where its file is absent."""

import numpy as np
import pytest

from netfit import data
from netfit.data import _files
from netfit.data._mel import log_mel, mel_filters
from netfit.errors import DataNotFound, MissingExtraError


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    """Tests use what is on disk; they never fetch 170 MB."""

    def refuse(source):
        raise ConnectionError

    monkeypatch.setattr(_files, "_download", refuse)


def load(name, split="train"):
    try:
        return data.load(name, split)
    except (DataNotFound, MissingExtraError) as e:
        pytest.skip(str(e))


def recordings(name, split):
    try:
        return data.recordings(name, split)
    except DataNotFound as e:
        pytest.skip(str(e))


EXPECTED = {  # name: (input shape, classes, train, test)
    "ambiguous-mnist": ((1, 28, 28), 10, 5312, 2100),
    "cifar10": ((3, 32, 32), 10, 50000, 10000),
    "digits": ((1, 8, 8), 10, 1437, 360),
    "fashion-mnist": ((1, 28, 28), 10, 60000, 10000),
    "fsdd": ((1, 40, 64), 10, 2700, 300),
    "mnist": ((1, 28, 28), 10, 60000, 10000),
    "table:letter": ((16,), 26, 16000, 4000),
    "table:satimage": ((36,), 6, 4435, 2000),
    "table:soybean": ((35,), 19, 512, 171),
    "table:usps": ((256,), 10, 7291, 2007),
    "tiny-imagenet20": ((3, 64, 64), 20, 10000, 1000),
    "wake-words": ((1, 40, 148), 6, 1400, 400),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_shapes_labels_and_statistics(name):
    shape, classes, n_train, n_test = EXPECTED[name]
    test = load(name, "test")
    assert test.shape == shape and len(test) == n_test and len(test.classes) == classes
    assert test.y.dtype == np.int64 and set(np.unique(test.y)) == set(range(classes))
    assert len(test.mean) == len(test.std) == shape[0]
    x, _ = test.tensors(np.arange(0, n_test, max(1, n_test // 200)))
    assert abs(x.mean()) < 0.2 and 0.7 < x.std() < 1.3
    if name not in ("cifar10", "tiny-imagenet20"):  # their training images take seconds to decode
        train = load(name)
        assert len(train) == n_train
        data.check_disjoint(train, test)


def test_every_name_loads_or_says_why_not():
    assert data.names() == sorted(data.names()) and len(data.names()) == 32


def test_digits_splits_are_fixed():
    assert load("digits", "test").index[:5].tolist() == [5, 9, 12, 14, 16]


def test_cifar10_images_have_the_documented_statistics():
    test = load("cifar10", "test")
    x = test.x[:2000] / 255
    assert np.abs(x.mean((0, 2, 3)) - test.mean).max() < 0.02
    assert np.abs(x.std((0, 2, 3)) - test.std).max() < 0.02


def test_ambiguous_digits_carry_their_probabilities():
    test = load("ambiguous-mnist", "test")
    p = test.extra["probability"]
    assert np.abs(p.sum(1) - 1).max() < 1e-3 and (p.argmax(1) == test.y).all()
    assert test.subset([5]).extra["label"].shape == (1, 10)


def test_fsdd_uses_the_official_split():
    train, test = (recordings("fsdd", split) for split in ("train", "test"))
    assert test.extra["take"].max() == 4 and train.extra["take"].min() == 5


def test_recordings_belong_to_the_images():
    images = load("fsdd", "test")
    sound = data.recordings("fsdd", "test")
    assert (sound.index == images.index).all() and (sound.y == images.y).all()
    assert sound.sample_rate == 8000 and sound.offset[-1] == len(sound.samples)
    image = log_mel(sound.clip(17), 8000, 64)
    assert (image == images.x[17, 0]).all()


def test_log_mel_of_a_tone_peaks_in_its_band():
    t = np.arange(16000) / 16000
    image = log_mel((8000 * np.sin(2 * np.pi * 1000 * t)).astype(np.int16), 16000, 60)
    centre = mel_filters(16000, 512)[round(1000 * 512 / 16000)].argmax()
    assert image.shape == (40, 60) and (image.argmax(0) == centre).all()


def test_log_mel_pads_short_recordings_with_silence_on_both_sides():
    noise = np.random.default_rng(0).integers(-9000, 9000, 1600).astype(np.int16)
    loud = log_mel(noise, 16000, 60).mean(0) > -8
    assert not loud[:15].any() and not loud[-15:].any() and loud[25:32].all()


def test_usps_and_letter_floors():
    from sklearn.naive_bayes import GaussianNB

    for name, floor in (("table:letter", 0.62), ("table:usps", 0.79)):
        train, test = load(name), load(name, "test")
        assert GaussianNB(var_smoothing=0.01).fit(train.x, train.y).score(test.x, test.y) >= floor
