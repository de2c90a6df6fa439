"""``netfit speech`` from simulated rooms to a page that plays."""

import json

import pytest
import torch

from netfit.speech.files import properties, read, write


def voices(folder):
    g = torch.Generator().manual_seed(0)
    for i in range(2):
        t = torch.arange(24000) / 16000
        x = torch.sin(2 * torch.pi * (120 + 30 * i) * t).sign() * torch.sin(7 * t).clamp(min=0)
        (folder / "a").mkdir(exist_ok=True)
        write(folder / "a" / f"{i}.wav", 0.3 * x + 0.01 * torch.randn(24000, generator=g), 16000)
    return folder


@pytest.fixture
def scenes(netfit, tmp_path):
    speech = tmp_path / "voices"
    speech.mkdir()
    where = tmp_path / "scenes"
    arguments = ("speech", "simulate", "--speech", voices(speech), "--noise", "pink", "-n", "2", "--seconds", "1.5")
    done = netfit(*arguments, "--rt60", "0.2,0.2", "--snr", "0,0", "-o", where, "--json")
    assert done.status == 0, done.err
    again = netfit(*arguments, "--rt60", "0.2,0.2", "--snr", "0,0", "-o", where)
    assert again.status == 2 and "holds other scenes" in again.err
    return where


def test_simulate_train_evaluate(netfit, scenes, tmp_path):
    run = tmp_path / "run"
    done = netfit(
        "speech", "train", scenes, "--bits", "w1a8", "--hidden", "16", "--epochs", "1", "--low-epochs", "1",
        "--run", run,
        "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.json["bytes"] == sum(f.stat().st_size for f in (run / "model").iterdir())
    done = netfit("speech", "eval", scenes, run / "model", "--run", tmp_path / "eval", "--json")
    assert done.status == 0, done.err
    names = [row["system"] for row in done.json["rows"]]
    assert names[0] == "noisy" and "model mvdr" in names and names[-1] == "ideal gev-pan"
    page = (tmp_path / "eval" / "report.html").read_text()
    assert page.count("<audio") == 2 and "data:audio/wav;base64," in page and page.count("<svg") == 3
    assert "of what the ideal mask brings" in page
    done = netfit("speech", "eval", scenes, "--wer")
    assert done.status == 2 and "simulate them with --texts" in done.err


def test_enhance(netfit, scenes, tmp_path):
    mix = read(scenes / "0000-mix.flac")[0]
    mix[4] = 0
    write(tmp_path / "in.wav", mix, 16000)
    done = netfit("speech", "enhance", tmp_path / "in.wav", tmp_path / "out.wav", "--run", tmp_path / "run")
    assert done.status == 0, done.err
    assert "warning: microphone 4 is dead" in done.out and properties(tmp_path / "out.wav") == (1, 24000, 16000)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["channels"] == [0, 1, 2, 3, 5]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<audio") == 2 and "microphone 4 is dead" in page


def test_enhance_in_a_stream(netfit, scenes, tmp_path):
    results = []
    for block in ("5", "32", "1000"):
        out = tmp_path / f"{block}.flac"
        done = netfit("speech", "enhance", scenes / "0000-mix.flac", out, "--stream", "--block-ms", block, "--json")
        assert done.status == 0, done.err
        results.append(read(out)[0])
    assert done.json["latency_ms"] == 64 and done.json["seconds"] == 1.5
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_a_stream_names_microphones_that_fail(netfit, scenes, tmp_path):
    mix = read(scenes / "0000-mix.flac")[0]
    mix[4] = 0
    write(tmp_path / "in.wav", mix, 16000)
    done = netfit("speech", "enhance", tmp_path / "in.wav", tmp_path / "out.wav", "--stream")
    assert done.status == 0 and "warning: microphone 4 is dead" in done.out, done.err


def test_a_silent_stream_is_warned_of(netfit, tmp_path):
    write(tmp_path / "in.wav", torch.zeros(2, 8000), 16000)
    done = netfit("speech", "enhance", tmp_path / "in.wav", tmp_path / "out.wav", "--stream")
    assert done.status == 0 and done.out.count("is dead: 0 samples differ from silence") == 2, done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("enhance", "no.wav", "out.wav"), "no sound file no.wav"),
        (("enhance", "no.wav", "out.wav", "--stream"), "no sound file no.wav"),
        (("enhance", "no.wav", "out.wav", "--stream", "--mask", "blind"), "leave out --mask"),
        (("enhance", "no.wav", "out.wav", "--beamformer", "mvd"), "mvd"),
        (("simulate", "--speech", "/nowhere", "-o", "x"), "no folder /nowhere"),
        (("train", "/nowhere"), "no scenes.json"),
        (("eval", "/nowhere"), "no scenes.json"),
    ],
)
def test_bad_input(netfit, arguments, message):
    done = netfit("speech", *arguments)
    assert done.status == 2 and message in done.err and "Traceback" not in done.err


def test_mono_says_what_to_do(netfit, tmp_path):
    write(tmp_path / "mono.wav", torch.randn(8000) * 0.1, 16000)
    done = netfit("speech", "enhance", tmp_path / "mono.wav", tmp_path / "out.wav")
    assert done.status == 2 and "use beamformer='none'" in done.err
    done = netfit("speech", "enhance", tmp_path / "mono.wav", tmp_path / "out.mp3", "--beamformer", "none")
    assert done.status == 2 and "must end in .wav or .flac" in done.err
