"""Low-bit Bayesian layers: the contract, the three modes, training through rounding, the packed file."""

import pytest
import torch

from netfit import quant
from netfit.bayes import fit_svi, predict, to_bayesian, to_pfp
from netfit.bayes.quantized import QuantizeBayes, load_packed, memory_report, quantize_bayes, save_packed
from netfit.bayes.svi import bayes_layers, sampling
from netfit.errors import ArtifactError, ConfigError, UnsupportedLayerError
from netfit.surgery import Policy
from netfit.testing import TechniqueContract

from .nets import Residual, built, inputs, mlp

X = inputs(8, 6)


class TestContract(TechniqueContract):
    @pytest.fixture
    def technique(self):
        return QuantizeBayes(mu_bits=6)

    def model(self):
        return to_bayesian(super().model(), *self.example_inputs()).eval()


def rounded(mode, bits=3, make=mlp, x=X):
    return quantize_bayes(built(make, x), x, policy=Policy({"*": QuantizeBayes(mode, bits, bits, bits)})).eval()


def test_each_mode_rounds_what_it_says():
    plain = built(mlp, X)
    for mode in ("VPQ", "SPQ", "JQ"):
        layer, original = rounded(mode)[2], plain[2]
        mean, std = layer.posterior()
        stored = mode != "SPQ"
        assert torch.equal(mean, original.weight) != stored
        assert (len(mean[0].unique()) <= 7) == stored
        assert (len(std.unique()) <= 8) == stored
        with sampling(layer, torch.Generator().manual_seed(0)):
            drawn = layer._draw(layer.generator)[0]
        assert (len(drawn[0].unique()) <= 7) == (mode != "VPQ")


def test_formats_are_those_of_the_quant_room():
    rounding = rounded("JQ")[0].rounding
    assert isinstance(rounding.mu, quant.Affine)
    assert isinstance(rounding.sigma, quant.Logarithmic)
    assert isinstance(rounding.sample, quant.Affine)


def test_more_bits_change_less():
    x = X
    wanted = predict(built(mlp, x), x, n_samples=60).probs
    errors = [float((predict(rounded("VPQ", bits), x, n_samples=60).probs - wanted).abs().mean()) for bits in (8, 4, 2)]
    assert errors == sorted(errors)
    assert errors[0] < 0.01


def test_training_goes_through_the_rounding():
    x = inputs(160, 6)
    train = x, (x[:, 0] > 0).long()
    model = rounded("JQ", 4, lambda: mlp(classes=2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit_svi(model, train, epochs=12, lr=0.02, batch_size=20, kl_weight=0.1)
    assert all(not torch.equal(v, before[k]) for k, v in model.state_dict().items() if "weight" in k)
    assert (predict(model, x, n_samples=20).prediction == train[1]).float().mean() > 0.9


@pytest.mark.parametrize(("mode", "bits"), [("JQ", 4), ("VPQ", 8), ("VPQ", 3)])
def test_the_packed_file_predicts_bit_by_bit(tmp_path, mode, bits):
    x = inputs(3, 2, 12, 12)
    model = rounded(mode, bits, Residual, x)
    size = save_packed(model, tmp_path / "net")
    assert size == sum(f.stat().st_size for f in (tmp_path / "net").iterdir())
    back = load_packed(tmp_path / "net", to_bayesian(Residual().eval(), x))
    for name, layer in bayes_layers(back).items():
        for mine, theirs in zip(layer.posterior(), bayes_layers(model)[name].posterior(), strict=True):
            assert torch.equal(mine, theirs)
    assert torch.equal(predict(back, x, n_samples=5).probs, predict(model, x, n_samples=5).probs)
    assert torch.equal(to_pfp(back, x)(x).var, to_pfp(model, x)(x).var)
    save_packed(back, tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "net/model.safetensors").read_bytes()


def test_four_bits_make_an_eighth(tmp_path):
    x = inputs(2, 784)
    model = rounded("JQ", 4, lambda: mlp(784, 100, 10), x)
    assert save_packed(model, tmp_path / "net") <= 95_600  # 89 610 weights are 716 880 bytes as two float32 numbers
    rows = memory_report(model)
    assert [r["name"] for r in rows] == ["0.weight", "2.weight", "4.weight", "everything else"]
    assert rows[0]["codes"] == 78_400 and rows[0]["smaller"] > 7.9
    assert sum(r["codes"] + r["scales"] for r in rows) <= 95_600


def test_refused(tmp_path):
    with pytest.raises(ConfigError, match="mode='VQP'"):
        QuantizeBayes(mode="VQP")
    with pytest.raises(ConfigError, match="mu_bits=1"):
        QuantizeBayes(mu_bits=1)
    with pytest.raises(UnsupportedLayerError, match="no Bayesian layer"):
        quantize_bayes(mlp().eval(), X)
    model = built(mlp, X)
    with pytest.raises(ConfigError, match=r"72 of 72 standard deviations of '0'.*octaves"):
        quantize_bayes(model, X, policy=Policy({"*": QuantizeBayes(octaves=1.0)}))
    with pytest.raises(ConfigError, match="not rounded"):
        save_packed(model, tmp_path / "net")
    save_packed(rounded("VPQ"), tmp_path / "net")
    with pytest.raises(ArtifactError, match="the network has 0"):
        load_packed(tmp_path / "net", to_bayesian(torch.nn.Sequential(torch.nn.Linear(6, 2)).eval(), X))
    with pytest.raises(ArtifactError, match="does not fit"):
        load_packed(tmp_path / "net", to_bayesian(mlp(hidden=13).eval(), X))
