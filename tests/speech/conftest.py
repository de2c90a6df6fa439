"""Voices made of nothing, rooms with them in it, and a small mask network."""

import numpy as np
import pytest
import torch

from netfit.speech import MaskEstimator, SceneFolder, Scenes
from netfit.speech.files import write

FS = 16000


def voice(seconds, seed):
    """Syllables: harmonics of a moving pitch that come and go, with hiss between them."""
    rng = np.random.default_rng(seed)
    n = int(seconds * FS)
    knots = np.linspace(0, n, int(8 * seconds) + 2)
    loud = np.interp(np.arange(n), knots, rng.uniform(0, 1, len(knots)) ** 2)
    pitch = np.interp(np.arange(n), knots, rng.uniform(90, 250, len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch) / FS
    tone = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 30))
    hiss = np.interp(np.arange(n), knots, rng.uniform(0, 1, len(knots)) ** 4) * rng.standard_normal(n)
    return torch.from_numpy(0.3 * (loud * tone + 0.3 * hiss)).float()


@pytest.fixture(scope="session")
def voices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voices")
    for speaker in ("a", "b"):
        (folder / speaker).mkdir()
        lines = []
        for i in range(3):
            x = voice(1.5, 10 * i + (speaker == "b"))
            write(folder / speaker / f"{i}.wav", x / x.abs().max() * 0.8, FS)
            lines.append(f"{i}\tPress {i + 1}, number {['one', 'two', 'three'][i]}.")
        (folder / speaker / "texts.tsv").write_text("\n".join([*lines, "beep\t[a tone]"]))
    return folder


@pytest.fixture(scope="session")
def scenes(voices):
    """Three scenes of two seconds, heard by six microphones."""
    made = Scenes(voices, "pink,hum", n=3, snr=(0, 3), rt60=(0.2, 0.25), seconds=2, seed=1)
    return [made[i] for i in range(3)]


@pytest.fixture(scope="session")
def folder(scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes")
    facts = [SceneFolder.keep(path, i, scene) for i, scene in enumerate(scenes)]
    SceneFolder.finish(path, facts, {"sentences": []})
    return path


@pytest.fixture
def small():
    """A mask network of 33 frequencies with weights of a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MaskEstimator(n_fft=64, hidden=32).eval()
