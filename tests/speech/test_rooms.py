"""Rooms, scenes and what they are made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ArtifactError, ConfigError
from netfit.speech import SceneFolder, Scenes
from netfit.speech._noise import SYNTHETIC
from netfit.speech._room import SPEED_OF_SOUND, impulse_responses
from netfit.speech._texts import normalize

SIZE = np.array([5.0, 4.0, 3.0])


@settings(max_examples=15)
@given(x=st.floats(0.5, 4.5), y=st.floats(0.5, 3.5))
def test_the_direct_sound_arrives_when_and_as_loud_as_it_must(x, y):
    source, mic, fs = np.array([x, y, 1.2]), np.array([2.5, 2.0, 1.5]), 16000
    distance = np.linalg.norm(source - mic)
    h = impulse_responses(SIZE, 0.2, source, mic, fs)[0]
    early = h[: int(distance / SPEED_OF_SOUND * fs) + 12]
    at = distance / SPEED_OF_SOUND * fs
    assert abs(int(np.abs(early).argmax()) - at) <= 1 or distance > 1  # far away a wall may be as near
    k = np.fft.rfftfreq(4096, 1 / fs)
    band = (k > 1000) & (k < 6000)
    alone = np.zeros_like(h)
    alone[: int(at) + 6] = h[: int(at) + 6]
    if distance < 1:
        size = np.abs(np.fft.rfft(alone, 4096))[band].mean() * 4 * np.pi * distance
        assert 0.8 < size < 1.2


@pytest.mark.parametrize("rt60", [0.2, 0.4])
def test_sound_dies_away_in_the_time_asked_for(rt60):
    h = impulse_responses(SIZE, rt60, np.array([1.0, 1.2, 1.3]), np.array([3.5, 2.5, 1.6]), 16000)[0]
    left = 10 * np.log10(np.cumsum(h[::-1] ** 2)[::-1] / np.sum(h**2))
    a, b = (int(np.argmax(left < level)) for level in (-5, -25))
    assert rt60 * 0.7 < 3 * (b - a) / 16000 < rt60 * 1.3


def test_rooms_that_cannot_be():
    inside, outside = np.array([1.0, 1, 1]), np.array([1.0, 5, 1])
    with pytest.raises(ConfigError, match=r"microphone at .* is outside the room"):
        impulse_responses(SIZE, 0.3, inside, outside, 16000)
    with pytest.raises(ConfigError, match="walls would absorb everything"):
        impulse_responses(SIZE, 0.02, inside, inside + 1, 16000)
    with pytest.raises(ConfigError, match="must be positive"):
        impulse_responses(SIZE, 0.0, inside, inside + 1, 16000)


@pytest.mark.parametrize("name", sorted(SYNTHETIC))
def test_noises_have_unit_power_and_depend_on_their_seed_alone(name):
    a, b, c = (SYNTHETIC[name](8000, 16000, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert abs(np.mean(a**2) - 1) < 1e-6


def test_scenes_are_what_was_asked_for(scenes, voices):
    for scene in scenes:
        assert scene.mix.shape == (6, 32000) and scene.mix.abs().max() <= 1
        ratio = 10 * torch.log10(scene.speech[0].square().mean() / scene.noise[0].square().mean())
        assert abs(float(ratio) - scene.facts["snr_db"]) < 0.1 and 0 <= scene.facts["snr_db"] <= 3
    again = Scenes(voices, "pink,hum", n=9, snr=(0, 3), rt60=(0.2, 0.25), seconds=2, seed=1)[2]
    assert torch.equal(again.mix, scenes[2].mix)  # number 2 whatever the number of scenes


def test_scenes_with_texts(voices):
    made = Scenes(voices, "babble", n=2, seconds=4, texts=True, array=[[0, 0, 0], [0.1, 0, 0]])
    assert made[0].facts["text"] in made.sentences and made[0].mix.shape[0] == 2
    assert made.sentences == ["press one number one", "press three number three", "press two number two"]


def test_scenes_on_disk(folder, scenes):
    back = SceneFolder(folder)
    assert len(back) == 3 and back[1].facts == scenes[1].facts
    assert (back[1].mix - scenes[1].mix).abs().max() < 1e-4
    with pytest.raises(IndexError):
        back[3]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"speech": "/nowhere"}, "no folder /nowhere of recordings"),
        ({"noise": "pnik"}, "did you mean 'pink'"),
        ({"noise": ""}, "no noise named"),
        ({"array": "tablet"}, "did you mean 'tablet6'"),
        ({"array": [[0, 0]]}, "array positions of shape"),
        ({"snr": (5, 0)}, "give the lower end first"),
        ({"n": 0}, "allowed are one or more"),
    ],
)
def test_bad_scenes(how, message, voices):
    with pytest.raises(ConfigError, match=message):
        Scenes(**{"speech": voices, "noise": "pink"} | how)


def test_folders_that_hold_none(tmp_path):
    with pytest.raises(ConfigError, match="no recordings in"):
        Scenes(tmp_path, "pink")
    with pytest.raises(ArtifactError, match=r"no scenes\.json"):
        SceneFolder(tmp_path)
    (tmp_path / "scenes.json").write_text("{}")
    with pytest.raises(ArtifactError, match="lists no scenes"):
        SceneFolder(tmp_path)


def test_texts():
    assert normalize("That's 5.") == "that's five"
    assert normalize("dial 500") == normalize("[beep]") == normalize("(silence)") == ""
