"""A stream is the same however it is cut, stops and goes on, and keeps its promises."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ArtifactError, ConfigError
from netfit.speech import MaskEstimator, StreamingEnhancer, enhance
from netfit.speech.files import Writer, properties, read, write
from netfit.streaming import Stateful, load_state, save_state

N = 1500
SAMPLES = np.random.default_rng(0).normal(size=(3, N)).astype(np.float32) * 0.1
torch.manual_seed(0)
MODEL = MaskEstimator(n_fft=64, hidden=16).eval()


def stream(**how):
    return StreamingEnhancer(MODEL, 3, hop=16, **how)


def run(cuts, x=SAMPLES, **how):
    enhancer = stream(**how)
    edges = [0, *sorted(cuts), x.shape[1]]
    parts = [enhancer.process(x[:, a:b]) for a, b in pairwise(edges)]
    return np.concatenate([*parts, enhancer.flush()])


WHOLE = run([])


@settings(max_examples=25)
@given(st.lists(st.integers(0, N), max_size=12))
def test_the_output_is_identical_for_any_size_of_block(cuts):
    assert np.array_equal(run(cuts), WHOLE)


def test_as_much_comes_out_as_went_in_and_in_time():
    enhancer, taken, given_out = stream(), 0, 0
    assert enhancer.latency_samples == 64
    for a in range(0, N, 7):
        block = SAMPLES[:, a : a + 7]
        taken += block.shape[1]
        given_out += len(enhancer.process(block))
        assert taken - enhancer.latency_samples <= given_out <= taken
    assert given_out + len(enhancer.flush()) == N == len(WHOLE)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 63, 64, 65])
def test_short_streams(n):
    assert len(run([], SAMPLES[:, :n])) == n


def test_until_there_is_a_filter_the_reference_is_heard():
    assert np.allclose(run([], update_every=8)[:64], SAMPLES[0, :64], atol=1e-5)


@pytest.mark.parametrize(
    "how",
    [
        {"beamformer": "gev"},
        {"postfilter": "mask"},
        {"postfilter": "ban"},
        {"beamformer": "none"},
        {"update_every": 3, "tau_frames": 50},
    ],
)
def test_other_ways_are_cut_alike(how):
    whole = run([], **how)
    assert np.array_equal(run([3, 500, 501], **how), whole) and not np.array_equal(whole, WHOLE)


@pytest.mark.parametrize("at", [0, 5, 777])
def test_a_stopped_stream_goes_on(at, tmp_path):
    first = stream()
    assert isinstance(first, Stateful)
    begin = first.process(SAMPLES[:, :at])
    save_state(tmp_path / "s", "speech", first.state())
    first.process(SAMPLES[:, at:])  # what happens later must not touch the state
    second = stream()
    second.restore(load_state(tmp_path / "s", "speech"))
    assert np.array_equal(np.concatenate([begin, second.process(SAMPLES[:, at:]), second.flush()]), WHOLE)
    with pytest.raises(ConfigError, match="does not fit here"):
        StreamingEnhancer(MODEL, 4, hop=16).restore(load_state(tmp_path / "s", "speech"))


def test_a_state_can_be_gone_on_from_twice():
    first = stream()
    begin = first.process(SAMPLES[:, :777])
    state = first.state()
    for _ in range(2):
        second = stream()
        second.restore(state)
        assert np.array_equal(np.concatenate([begin, second.process(SAMPLES[:, 777:]), second.flush()]), WHOLE)


def test_a_flushed_stream_starts_anew():
    enhancer = stream()
    enhancer.process(SAMPLES[:, :700])
    enhancer.flush()
    assert np.array_equal(np.concatenate([enhancer.process(SAMPLES), enhancer.flush()]), WHOLE)


def test_a_packed_network_streams_alike():
    x = torch.randn(2000, len(MODEL.mean), generator=torch.Generator().manual_seed(0))
    model = MODEL.quantized("w1a8", x).eval()
    packed = StreamingEnhancer(model, 3, hop=16)
    assert type(packed._network).__name__ == "PackedNetwork"
    plain = StreamingEnhancer(model, 3, hop=16, network=model.net)
    a, b = (np.concatenate([s.process(SAMPLES), s.flush()]) for s in (packed, plain))
    assert np.abs(a - b).max() < 0.02 * np.abs(a).max()


def test_streaming_comes_near_the_filter_of_the_whole(scenes):
    """With the ideal mask in place of the network, so that only the streaming differs."""
    from netfit.speech._stft import STFT
    from netfit.speech._train import ideal_mask
    from netfit.speech.scores import si_sdr

    lost = []
    for scene in scenes:
        mask = ideal_mask(scene, STFT())
        frames = iter(torch.logit(mask.T[:, None], eps=1e-4))
        model = MaskEstimator(hidden=8, features=("magnitude",)).eval()
        enhancer = StreamingEnhancer(model, 6, network=lambda _, frames=frames: next(frames))
        voice = torch.from_numpy(np.concatenate([enhancer.process(scene.mix), enhancer.flush()]))
        whole = enhance(scene.mix, scene.fs, mask=mask, ref=0).audio
        half = scene.mix.shape[1] // 2  # once the covariances have seen something
        lost.append(float(si_sdr(whole[half:], scene.speech[0, half:]) - si_sdr(voice[half:], scene.speech[0, half:])))
    assert sum(lost) / 3 < 2


def test_files_of_any_length(tmp_path):
    write(tmp_path / "in.wav", torch.from_numpy(SAMPLES), 16000)
    assert stream().enhance_file(tmp_path / "in.wav", tmp_path / "out.flac", 100) == N
    assert properties(tmp_path / "out.flac") == (1, N, 16000)
    stored = read(tmp_path / "in.wav")[0].numpy()
    assert np.abs(read(tmp_path / "out.flac")[0][0].numpy() - run([], stored).clip(-1, 1)).max() < 1e-4
    with pytest.raises(ConfigError, match=r"3 channels and 16000 samples a second, the stream 2 and 16000"):
        StreamingEnhancer(MODEL, 2, hop=16).enhance_file(tmp_path / "in.wav", tmp_path / "no.wav", 100)
    write(tmp_path / "empty.wav", torch.zeros(3, 0), 16000)
    with pytest.raises(ConfigError, match=r"empty\.wav is empty: 0 samples of 3 channels"):
        stream().enhance_file(tmp_path / "empty.wav", tmp_path / "no.wav", 100)


def test_a_broken_job_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "x.wav", 16000) as writer:
        writer.write(np.zeros(5))
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"must end in \.wav or \.flac"):
        Writer(tmp_path / "x.mp3", 16000)
    with pytest.raises(ArtifactError, match="cannot write"):
        Writer(tmp_path / "no" / "x.wav", 16000)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"n_mics": 1}, "needs >= 2 microphones, not 1; use beamformer='none'"),
        ({"n_mics": 17}, "17 microphones, more than 16: channels interleaved by mistake"),
        ({"fs": 8000}, "fs=8000, but the mask network is for 16000"),
        ({"ref": 3}, "ref=3 is none of the 3"),
        ({"tau_frames": 0}, "must be at least 1"),
        ({"hop": 48}, "at least two hops"),
    ],
)
def test_bad_settings(how, message):
    with pytest.raises(ConfigError, match=message):
        StreamingEnhancer(MODEL, **{"n_mics": 3, "hop": 16} | how)


def test_bad_blocks():
    with pytest.raises(ConfigError, match=r"shape \(2, 5\): expected \(3, samples\)"):
        stream().process(np.zeros((2, 5)))
    with pytest.raises(ConfigError, match="NaN or infinite in the block after sample 10"):
        enhancer = stream()
        enhancer.process(SAMPLES[:, :10])
        enhancer.process(np.full((3, 5), np.nan))
