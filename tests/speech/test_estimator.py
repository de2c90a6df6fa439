"""The mask network: what it may see, and its low-bit forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ArtifactError, ConfigError
from netfit.speech import MaskEstimator, PackedNetwork, load_model, save_model
from netfit.speech._estimator import BITS
from netfit.surgery import Policy, Quantization, Quantize

INTEGER = [bits for bits in BITS if bits != "fp32"]


def spectrum(M=3, T=20, seed=0, F=33):
    return torch.randn(2, M, F, T, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def calibrated(model, bits):
    x = torch.randn(2000, len(model.mean), generator=torch.Generator().manual_seed(0))
    new = model.quantized(bits, x).eval()
    Quantization.of(new.net).freeze()
    return new, x[:70]


@pytest.mark.parametrize("mics", [1, 2, 6, 16])
def test_any_number_of_microphones(small, mics):
    with torch.no_grad():
        mask = small(spectrum(mics))
    assert mask.shape == (2, 33, 20) and mask.min() >= 0 and mask.max() <= 1


def test_no_frame_looks_ahead(small):
    Y = spectrum()
    later = Y.clone()
    later[..., 12:] = 5
    with torch.no_grad():
        assert torch.equal(small(Y)[..., :12], small(later)[..., :12])


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 19), max_size=4), seed=st.integers(0, 99))
def test_features_do_not_depend_on_how_a_stream_is_cut(cuts, seed):
    model, Y = MaskEstimator(64, 8), spectrum(seed=seed)
    whole, _ = model.standardised(Y, model.start(3, 2))
    parts, state = [], model.start(3, 2)
    for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 20], strict=True):
        if b > a:
            part, state = model.standardised(Y[..., a:b], state)
            parts.append(part)
    assert torch.equal(torch.cat(parts, 1), whole)


@pytest.mark.parametrize("gain", [1e-3, 1e3])
def test_loudness_does_not_matter(small, gain):
    with torch.no_grad():
        assert torch.allclose(small(gain * spectrum()), small(spectrum()), atol=1e-3)


def test_eigenvector_features_tell_one_source_from_noise():
    model = MaskEstimator(64, 8, features=("eigen",))
    direction = torch.exp(1j * torch.arange(6) * torch.rand(33, 1)).T[None, :, :, None]
    source = direction * spectrum(1, 80)[:1]
    noise = spectrum(6, 80)[:1]
    source, noise = (
        model.standardised(Y, model.start(6))[0][0, 40:].unflatten(-1, (2, 33)).mean((0, 2)) for Y in (source, noise)
    )
    assert source.min() > 0.999 and noise[0] < 0.99 and noise[1] < 0.5


@pytest.mark.parametrize("bits", INTEGER)
def test_packed_integers_compute_what_the_simulation_computes(small, bits):
    model, x = calibrated(small, bits)
    packed = PackedNetwork(model)
    with torch.no_grad():
        simulated = model.net(x)
    assert torch.allclose(packed(x), simulated, atol=1e-5)
    assert torch.equal(packed(x[:1]), packed(x)[:1])


@pytest.mark.parametrize("bits", BITS)
def test_saved_networks_come_back(small, bits, tmp_path):
    model, x = calibrated(small, bits) if bits != "fp32" else (small, torch.randn(5, len(small.mean)))
    save_model(model, tmp_path / "m", {"made": "here"})
    back = load_model(tmp_path / "m")
    with torch.no_grad():
        assert torch.allclose(back.net(x), model.net(x), atol=1e-5)
    assert back.policy == model.policy and back.notes == {"made": "here"}


def test_one_bit_takes_one_bit_on_disk(tmp_path):
    model = MaskEstimator(hidden=256)
    small, _ = calibrated(model, "w1a8")
    sizes = []
    for name, m in (("fp32", model), ("w1a8", small)):
        save_model(m, tmp_path / name)
        weights = sum(p.numel() for n, p in m.net.named_parameters() if n.endswith("weight") and "norm" not in n)
        sizes.append(((tmp_path / name / "model.safetensors").stat().st_size, weights))
    assert sizes[1][0] <= sizes[0][0] / 20


def test_a_policy_of_ones_own(small):
    policy = Policy({"hidden*": Quantize(weight_bits=2), "out": Quantize()})
    model, x = calibrated(small, policy)
    assert Quantization.of(model.net).asked() == {"hidden1": "w2a8", "hidden2": "w2a8", "out": "int8"}
    with torch.no_grad():
        assert torch.allclose(PackedNetwork(model)(x), model.net(x), atol=1e-5)


@pytest.mark.parametrize("bits", ["int8", "w1a8"])
def test_the_network_runs_in_int8_as_an_onnx_file(small, bits, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    from netfit.deploy import export, open_session

    model, x = calibrated(small, bits)
    export(model.net, (x[:1],), tmp_path / "m.onnx", runtime="onnxruntime")
    session = open_session(tmp_path / "m.onnx", "onnxruntime")
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(session.run(x.numpy())[0]), model.net(x), atol=0.05)
    ran = {layer.name: layer.precision for layer in session.layers()}
    assert {ran[name] for name in ("hidden1", "hidden2")} == {"int8"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MaskEstimator(features=("eigne",)), "unknown feature 'eigne': did you mean 'eigen'"),
        (lambda: MaskEstimator(n_fft=63), "n_fft=63"),
        (lambda: MaskEstimator(64, 8).quantized("w1a9", torch.zeros(9, 132)), "unknown precision 'w1a9'"),
        (lambda: MaskEstimator(64, 8)(spectrum(F=20)), "expected .batch, microphones, 33, frames"),
        (lambda: PackedNetwork(MaskEstimator(64, 8)), "full precision"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_damaged_networks(small, tmp_path):
    from netfit.io import read_artifact, write_artifact

    with pytest.raises(ArtifactError, match="not an artifact"):
        load_model(tmp_path / "nothing")
    save_model(calibrated(small, "w1a8")[0], tmp_path / "m")
    found = read_artifact(tmp_path / "m")
    write_artifact(tmp_path / "other", found.meta | {"kind": "model"}, found.tensors)
    with pytest.raises(ArtifactError, match="holds 'model', not a mask network"):
        load_model(tmp_path / "other")
    write_artifact(tmp_path / "wide", found.meta | {"hidden": 99}, found.tensors)
    with pytest.raises(ArtifactError, match="packed weights of hidden1"):
        load_model(tmp_path / "wide")
    write_artifact(tmp_path / "less", {k: v for k, v in found.meta.items() if k != "n_fft"}, found.tensors)
    with pytest.raises(ArtifactError, match="describes no mask network: KeyError 'n_fft'"):
        load_model(tmp_path / "less")
