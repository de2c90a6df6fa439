"""Microphones that fail are named."""

import numpy as np
import pytest
import torch

from netfit.speech import check_microphones, enhance
from netfit.speech._scenes import ARRAYS
from netfit.speech._stft import STFT
from netfit.speech._train import ideal_mask
from netfit.speech.scores import si_sdr


def found(x, positions=None):
    return [(fault.channel, fault.kind) for fault in check_microphones(x, 16000, positions)]


def broken(x, kind):
    x = x.clone()
    if kind == "dead":
        x[2] = 1e-5 * torch.randn(x.shape[1])
    elif kind == "silent":
        x[2] = 0
    elif kind == "clipped":
        top = float(x[2].abs().quantile(0.95))
        x[2] = x[2].clamp(-top, top)
    elif kind == "inverted":
        x[2] = -x[2]
    return x


def test_good_arrays_have_no_fault(scenes):
    for scene in scenes:
        assert found(scene.mix, ARRAYS["tablet6"]) == []


@pytest.mark.parametrize(
    ("kind", "called"), [("dead", "dead"), ("silent", "dead"), ("clipped", "clipped"), ("inverted", "inverted")]
)
def test_faults_are_named(scenes, kind, called):
    for scene in scenes:
        assert found(broken(scene.mix, kind)) == [(2, called)]


def test_swapped_microphones_need_the_positions(scenes):
    wrong = 0
    for scene in scenes:
        x = scene.mix[[0, 1, 5, 3, 4, 2]]
        assert found(x) == []
        wrong += found(x, ARRAYS["tablet6"]) != [(2, "swapped"), (5, "swapped")]
    assert wrong == 0


@pytest.mark.parametrize("kind", ["dead", "clipped", "inverted"])
def test_a_failing_microphone_costs_no_more_than_its_absence(scenes, kind):
    rest, costs = [0, 1, 3, 4, 5], []
    for scene in scenes:
        mask = ideal_mask(scene, STFT())
        without = enhance(scene.mix[rest], scene.fs, mask=mask, ref=0).audio
        made = enhance(broken(scene.mix, kind), scene.fs, mask=mask, ref=0)
        assert made.faults and made.faults[0].channel == 2
        assert made.channels == ((0, 1, 2, 3, 4, 5) if kind == "inverted" else tuple(rest))
        costs.append(float(si_sdr(without, scene.speech[0]) - si_sdr(made.audio, scene.speech[0])))
    assert max(costs) <= 1


def test_swapping_costs_nothing(scenes):
    scene = scenes[0]
    mask = ideal_mask(scene, STFT())
    a = enhance(scene.mix, scene.fs, mask=mask, ref=0).audio
    b = enhance(scene.mix[[0, 1, 5, 3, 4, 2]], scene.fs, mask=mask, ref=0).audio
    assert torch.allclose(a, b, atol=1e-4)


def test_a_fault_says_what_was_found():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 16000)) * 0.1)
    x[1] = 0
    assert str(check_microphones(x, 16000)[0]) == "microphone 1 is dead: 0 samples differ from silence"
