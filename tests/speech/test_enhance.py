"""A recording in, one voice out, and everything that can be wrong with a recording."""

import numpy as np
import pytest
import torch

from netfit.errors import ArtifactError, ConfigError
from netfit.speech import MaskEstimator, enhance, load_model
from netfit.speech._stft import STFT
from netfit.speech._train import ideal_mask
from netfit.speech.files import as_signal, read, write
from netfit.speech.scores import oracle, si_sdr


def test_the_built_in_network_improves_simulated_rooms(scenes):
    gains = [
        float(si_sdr(enhance(s.mix, s.fs, ref=0).audio, s.speech[0]) - si_sdr(s.mix[0], s.speech[0])) for s in scenes
    ]
    assert sum(gains) / 3 > 1  # voices made of nothing, unlike any it was trained on


@pytest.mark.parametrize("beamformer", ["mvdr", "gev"])
def test_an_ideal_mask_brings_nearly_what_the_textbook_brings(scenes, beamformer):
    lost = []
    for scene in scenes:
        made = enhance(scene.mix, scene.fs, mask=ideal_mask(scene, STFT()), beamformer=beamformer, ref=0)
        assert made.weights.shape == (513, 6) and made.audio.shape == (32000,)
        best = si_sdr(oracle(scene, beamformer), scene.speech[0])
        lost.append(float(best - si_sdr(made.audio, scene.speech[0])))
    assert sum(lost) / 3 < 1.5


def test_postfilters(scenes):
    scene = scenes[0]
    mask = ideal_mask(scene, STFT())

    def made(**how):
        return enhance(scene.mix, scene.fs, mask=mask, ref=0, **how).audio

    assert torch.equal(made(beamformer="gev"), made(beamformer="gev", postfilter="pan"))
    assert torch.equal(made(), made(postfilter="none")) and not torch.equal(made(), made(postfilter="mask"))
    assert not torch.equal(made(beamformer="gev", postfilter="ban"), made(beamformer="gev"))


def test_one_microphone_by_its_mask(scenes):
    scene = scenes[0]
    made = enhance(scene.mix[0], scene.fs, beamformer="none", mask="blind")
    assert made.weights is None and made.channels == (0,)
    assert si_sdr(made.audio, scene.speech[0]) > si_sdr(scene.mix[0], scene.speech[0])


def test_the_best_microphone_is_taken(scenes):
    scene = scenes[0]
    x = scene.mix.clone()
    x[[0, 1, 2, 4, 5]] += 2 * scene.mix.std() * torch.randn(5, x.shape[1], generator=torch.Generator().manual_seed(0))
    assert enhance(x, scene.fs, mask=ideal_mask(scene, STFT())).reference == 3


def test_another_rate_is_resampled_with_a_word(scenes):
    from netfit.speech.files import resample

    x = resample(scenes[0].mix, 16000, 32000)
    made = enhance(x, 32000)
    assert made.fs == 16000 and len(made.audio) == 32000
    assert made.report["notes"] == ["resampled from 32000 to 16000 samples a second, which the mask network is for"]


def test_files_and_numbers(scenes, tmp_path):
    write(tmp_path / "in.wav", scenes[0].mix, 16000)
    made = enhance(tmp_path / "in.wav", mask="blind")
    again = enhance((read(tmp_path / "in.wav")[0].numpy() * 32768).round().astype(np.int16), 16000, mask="blind")
    assert torch.allclose(made.audio, again.audio, atol=1e-5)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1


NAN = noise(2, 4000)
NAN[1, 7] = float("nan")


@pytest.mark.parametrize(
    ("x", "how", "message"),
    [
        (noise(1, 4000), {}, "needs >= 2 microphones, not 1; use beamformer='none'"),
        (noise(4000), {"beamformer": "gev"}, "needs >= 2 microphones, not 1; use beamformer='none'"),
        (noise(2, 0), {}, "is empty"),
        (torch.zeros(2, 4000), {}, "is silent: all 4000 samples of 2 channels are zero"),
        (NAN, {}, "1 values that are NaN or infinite, the first in channel 1 at 7"),
        (noise(17, 4000), {}, "17 channels, more than 16: interleaved by mistake"),
        (noise(4000, 2), {}, "4000 channels, more than 16: interleaved by mistake.; transpose it"),
        (noise(2, 2, 2), {}, "give .microphones, samples."),
        (noise(2, 4000), {"fft": 256, "hop": 512}, "at least two hops"),
        (noise(2, 4000), {"fft": 512, "hop": 128, "mask": "model"}, "is for frames of 1024"),
        (noise(2, 4000), {"beamformer": "mvrd"}, "did you mean 'mvdr'"),
        (noise(2, 4000), {"postfilter": "bam"}, "did you mean"),
        (noise(2, 4000), {"mask": "modle"}, "did you mean 'model'"),
        (noise(2, 4000), {"mask": torch.ones(3, 3)}, "mask of shape"),
        (noise(2, 4000), {"ref": 2}, "ref=2 is none of the 2"),
        (noise(2, 4000) * torch.tensor([[1.0], [0.0]]), {}, "1 of 2 microphones can be used"),
        (noise(3, 4000) * torch.tensor([[1.0], [0.0], [1.0]]), {"ref": 1}, "ref=1: microphone 1 is dead"),
    ],
)  # fmt: skip
def test_bad_recordings(x, how, message):
    with pytest.raises(ConfigError, match=message) as e:
        enhance(x, 16000, **{"mask": "blind"} | how)
    assert "\n" not in str(e.value)


def test_no_rate_and_no_file(tmp_path):
    with pytest.raises(ConfigError, match="fs=None"):
        enhance(noise(2, 4000))
    with pytest.raises(ConfigError, match="no sound file"):
        enhance(tmp_path / "nothing.wav")
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(ArtifactError, match=r"text\.wav is no readable sound file"):
        enhance(tmp_path / "text.wav")


def test_a_clipped_recording_is_warned_of():
    x = (noise(3, 8000) * 5).clamp(-0.4, 0.4)
    made = enhance(x, 16000, mask="blind")
    assert [fault.kind for fault in made.faults] == ["clipped"] * 3 and made.channels == (0, 1, 2)


def test_int16_is_scaled():
    assert as_signal(np.full((2, 5), 16384, np.int16)).unique().tolist() == [0.5]


def test_the_built_in_network_is_small_and_says_where_it_comes_from():
    from importlib import resources

    model = load_model()
    assert isinstance(model, MaskEstimator) and model.policy.to_dict()["out"] == {"quantize": {"weight_bits": 1}}
    place = resources.files("netfit.speech").joinpath("pretrained")
    assert sum(len(f.read_bytes()) for f in place.joinpath("mask-w1a8").iterdir()) < 1_000_000
    text = place.joinpath("README.md").read_text()
    assert "netfit speech train" in text and "CC BY-SA" in text
