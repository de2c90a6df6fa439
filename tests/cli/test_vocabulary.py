"""One screen of help, an example for every command, and one meaning for every word."""

import contextlib
import random
import shlex
import wave

import pytest

from netfit.cli._app import app
from netfit.cli._examples import EXAMPLES

# A flag of several commands means in all of them what stands here; another meaning takes another word.
SHARED = {
    "--alerts": "file of JSON lines", "--allow-drift": "resume on another machine", "--also": "further targets",
    "--array": "an array: of elements, of microphones", "--at": "pattern of sites", "--base": "what is divided out",
    "--batch": "samples at once", "--bits": "width of weights", "--budget": "bytes", "--data": "data set",
    "--device": "the device modelled", "--devices": "pipeline devices", "--epochs": "passes over the training samples",
    "--draws": "networks or logits drawn", "--features": "what is predicted from", "--format": "of the input file",
    "--group-by": "labels of a group", "--groups": "groups", "--in-shape": "shape of one input",
    "--json": "JSON only", "--kl-weight": "of the evidence lower bound", "--levels": "strengths of noise",
    "--listen": "address of the metrics", "--lr": "learning rate", "--method": "which way", "--microbatch": "samples",
    "--microbatches": "of one step", "--model": "network", "--network": "links", "--noise": "kind of noise",
    "--num-classes": "outputs", "--objective": "what is traded", "--only": "devices", "--optimizer": "of the step",
    "--original": "model behind a saved network", "--out": "where the result goes", "--policy": "policy",
    "--quantity": "what is predicted", "--ray": "cluster", "--rows": "rows of an array", "--run": "run directory",
    "--samples": "training samples", "--seconds": "how long", "--seed": "of every draw", "--sequence": "tokens",
    "--state": "folder of a stream's state", "--std": "of the noise", "--step": "seconds between rows",
    "--steps": "how many", "--target": "hardware", "--test-samples": "test samples", "--threads": "of a measurement",
    "--times": "durations or points in time", "--token-file": "shared secret", "--torch-csv": "schedule for torch",
    "--trace": "a course over time", "--train-epochs": "of the original", "--trees": "of a forest",
    "--trials": "candidates tried",
}  # fmt: skip


def leaves(parent, path=()):
    """Every command and the words that call it."""
    for name in (n for n in parent if not n.startswith("-")):
        command = parent[name]
        if command.default_command is not None:
            yield " ".join([*path, name]), command
        yield from leaves(command, (*path, name))


COMMANDS = dict(leaves(app))


def flags(command):
    return {
        n for a in command.assemble_argument_collection() for n in a.names if n.startswith("--") and n[2:5] != "no-"
    }


def test_the_help_fits_one_screen(netfit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = netfit("--help").out
    assert len(text.splitlines()) <= 40
    assert all(f"│ {name.partition(' ')[0]} " in text for name in COMMANDS)


def test_every_command_gives_json():
    assert [name for name, command in COMMANDS.items() if "--json" not in flags(command)] == []


def test_one_meaning_for_every_word():
    found = [flag for command in COMMANDS.values() for flag in flags(command)]
    assert {flag for flag in found if found.count(flag) > 1} == set(SHARED)


def test_every_command_has_an_example(netfit):
    shown = [name for line in EXAMPLES for name in COMMANDS if f"{line} ".startswith(f"{name} ")]
    assert set(shown) == set(COMMANDS)
    assert "Example: netfit cost resnet20 --target systolic:32x32" in netfit("cost", "--help").out


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_parses(line):
    app.parse_args(shlex.split(line), print_error=False, exit_on_error=False)


# What an example of the list below finds in its folder, besides what the examples before it left.
def prepare(folder):
    rng = random.Random(0)
    (folder / "policy.toml").write_text('[policy."layer1.0.conv1"]\nprune = {sparsity = 0.5}\n')
    sizes = [(m, n, k) for m in (64, 512, 4096) for n in (256, 3000) for k in (512, 4096)]
    rows = [f"{m},{n},{k},{4 + 3e-9 * m * n * k},{d}" for m, n, k in sizes for d in ("a100_sxm", "h100_sxm")]
    (folder / "mm.csv").write_text("\n".join(["M,N,K,us,gpu", *rows]))
    rows = [f"{x},{rng.choice('ab')},{'high' if x > 5 else 'low'}" for x in range(11) for _ in range(9)]
    (folder / "table.csv").write_text("\n".join(["size,colour,kind", *rows]))
    names = [f'"rack=r{n // 8},node=n{n},metric=cpu"' for n in range(16)]
    rows = [",".join([str(t), *(f"{rng.gauss(50, 1):.3f}" for _ in names)]) for t in range(300)]
    (folder / "steady.csv").write_text("\n".join([",".join(["time", *names]), *rows]))
    rows = [f"{t},{rng.random():.3f}" for t in range(300)]
    (folder / "scores.csv").write_text("\n".join(["time,score", *rows]))
    with contextlib.closing(wave.open(str(folder / "noisy.wav"), "wb")) as sound:
        sound.setparams((4, 2, 16000, 0, "NONE", ""))
        sound.writeframes(b"".join(rng.randrange(-3000, 3000).to_bytes(2, "little", signed=True) for _ in range(32000)))


CHEAP = (
    "models", "env", "data list", "data fetch", "cost", "apply", "systolic sweep", "report", "gpu import", "gpu train",
    "gpu predict", "gpu adapt", "memory inspect", "pipeline compare", "pipeline optimize",
    "pipeline simulate", "pipeline export", "analog sites", "bayes tan", "speech enhance", "detect fit",
    "detect inject", "detect run", "detect eval", "detect cost", "embed", "vta run",
)  # fmt: skip


@pytest.mark.timeout(900)
def test_examples_run(netfit, tmp_path, monkeypatch):
    """The cheap ones, one after the other in one folder; each command's own tests run the others."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    lines = [line for line in EXAMPLES if f"{line} ".startswith(tuple(f"{name} " for name in CHEAP))]
    assert len(lines) == len(CHEAP)
    done = {line: netfit(*shlex.split(line), "--json") for line in lines}
    assert {line: d.err.splitlines()[-1] for line, d in done.items() if d.status} == {}
