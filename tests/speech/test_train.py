"""Training on a handful of scenes, and the table that compares."""

import pytest
import torch

from netfit.errors import ConfigError
from netfit.speech import MaskEstimator, SceneFolder, scores, train
from netfit.speech._recognise import bigrams
from netfit.speech._stft import STFT
from netfit.speech._train import ideal_mask
from netfit.surgery import Quantization

QUICK = {"n_fft": 256, "hidden": 32, "epochs": 8, "low_epochs": 4}


@pytest.fixture(scope="module")
def trained(folder):
    return train(SceneFolder(folder), **QUICK)


def error(model, scene):
    mask = ideal_mask(scene, STFT(256, 64))
    with torch.no_grad():
        return float((model(STFT(256, 64)(scene.mix)[None])[0] - mask).abs().mean())


def test_training_comes_nearer_to_the_ideal_mask(trained, folder):
    scene = SceneFolder(folder)[0]
    assert error(trained, scene) < 0.8 * error(MaskEstimator(256, 32).eval(), scene)


@pytest.mark.parametrize("bits", ["w1a8", "w1a1"])
def test_training_goes_on_at_few_bits(trained, folder, bits):
    data = SceneFolder(folder)
    low = train(data, bits=bits, start=trained, **QUICK)
    widths = Quantization.of(low.net).asked()
    assert widths["hidden2"] == widths["out"] == bits and widths["hidden1"] == "w1a8"
    assert error(low, data[0]) < 0.92 * error(MaskEstimator(256, 32).eval(), data[0])


def test_a_killed_training_goes_on_to_the_same_weights(folder, tmp_path):
    data, seen = SceneFolder(folder), []

    def stop(facts):
        seen.append(facts)
        if facts["part"] == "low":
            raise KeyboardInterrupt

    how = {"n_fft": 256, "hidden": 16, "epochs": 2, "low_epochs": 2, "bits": "w1a8", "features": ("magnitude",)}
    with pytest.raises(KeyboardInterrupt):
        train(data, folder=tmp_path, progress=stop, **how)
    resumed = train(data, folder=tmp_path, **how).state_dict()
    whole = train(data, **how).state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert {"features", "fp32", "low"} == {facts["part"] for facts in seen}


def test_no_scenes():
    with pytest.raises(ConfigError, match="no scenes"):
        train([])


def test_a_table_of_systems(trained, scenes):
    rows = scores.compare(scenes, scores.systems({"small": trained}))
    by = {row["system"]: row for row in rows}
    assert list(by) == ["noisy", "blind mvdr", "small mvdr", "small gev-pan", "ideal mvdr", "ideal gev-pan"]
    assert by["noisy"]["gain"] == pytest.approx(0) and by["ideal mvdr"]["gain"] > max(4, by["small mvdr"]["gain"])
    assert by["noisy"]["wer"] is None and "nothing to compare" in by["noisy"]["skipped"]["wer"]
    for metric in ("pesq", "stoi"):
        assert by["noisy"][metric] is not None or "netfit[speech-eval]" in by["noisy"]["skipped"][metric]


def test_sdr():
    g = torch.Generator().manual_seed(0)
    x, n = torch.randn(2, 16000, generator=g)
    assert float(scores.si_sdr(x + 0.1 * n, x)) == pytest.approx(20, abs=0.2)
    assert float(scores.si_sdr(7 * (x + 0.1 * n) + 3, x)) == pytest.approx(float(scores.si_sdr(x + 0.1 * n, x)))
    with pytest.raises(ConfigError, match="the reference is silent"):
        scores.si_sdr(x, torch.zeros(16000))
    with pytest.raises(ConfigError, match="cut them alike"):
        scores.si_sdr(x[:5], x)


def test_other_rates_have_no_pesq():
    x = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    assert "not 8000" in scores.evaluate(x, x, 8000)["pesq"]


def test_the_language_model_is_a_distribution():
    text = bigrams(["press one", "press two", "hang up"])
    words, pairs = (part.splitlines()[1:] for part in text.split("\\1-grams:")[1].split("\\2-grams:"))
    single = {line.split()[1]: (10 ** float(line.split()[0]), 10 ** float(line.split()[2])) for line in words if line}
    assert sum(p for word, (p, _) in single.items() if word != "<s>") == pytest.approx(1, abs=1e-3)
    after = {}
    for line in (line for line in pairs if len(line.split()) == 3):
        p, a, b = line.split()
        after.setdefault(a, {})[b] = 10 ** float(p)
    for a, seen in after.items():
        rest = sum(p for word, (p, _) in single.items() if word not in seen and word != "<s>")
        assert sum(seen.values()) + single[a][1] * rest == pytest.approx(1, abs=1e-2)


def test_words_are_recognised(voices):
    pytest.importorskip("pocketsphinx", reason="the extra speech-eval is not installed")
    from netfit.speech._recognise import Recognizer

    listener = Recognizer(["press one", "hang up"])
    assert listener.errors(torch.zeros(16000) + 1e-4, "hang up") >= 1
