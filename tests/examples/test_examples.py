"""Every composition runs at a small size and gives what it promises."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the installed package has no examples")


@pytest.fixture
def example(request, capsys):
    """Runs the example of the test's name and returns its result; it must have printed one line."""
    name = request.function.__name__.removeprefix("test_")

    def run(**sizes):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        result = module.main(**sizes)
        assert len(capsys.readouterr().out.strip().splitlines()) == 1
        return result

    return run


def test_odd_systolic_array(example):
    found = example(array="13x7", goal=0.4, epochs=2)
    assert found["cycles"] <= 0.4
    assert found["after"] > 0.85
    assert any(width % 7 == 0 for width in found["widths"].values())


def test_noisy_bayesian_bits(example):
    found = example()
    assert found["accuracy"] > 0.9
    assert found["bytes"] < 24_000  # two numbers of 4 bits for each of 17,510 weights, and scales
    assert found["low"] > 0.3 and found["weakest"] in found["sites"]
    assert found["everywhere"] < min(found["sites"].values())


def test_budgeted_structured_net():
    """In a process of its own: it forks, and what other tests left running does not survive that."""
    script = EXAMPLES / "budgeted_structured_net.py"
    done = subprocess.run([sys.executable, script, "--budget", "0.8"], capture_output=True, text=True, check=True)
    values, peak, accuracy, agreement = map(float, re.findall(r"\d\.\d+", done.stdout))
    assert values < 0.3 and peak <= 0.8
    assert accuracy > 0.85 and agreement == 1.0


@pytest.fixture
def predictor():
    """Of a GPU whose matrix products take twice as long as the data sheet allows."""
    pytest.importorskip("skl2onnx")
    from netfit.targets.gpu import KernelDB, KernelPredictor, Launch, device

    rng, db, spec = np.random.default_rng(0), KernelDB(), device("a100_sxm")
    for sizes in np.exp2(rng.uniform(7, 14, size=(150, 3))).astype(int).tolist():
        m, n, k = sizes
        launch = Launch("a100_sxm", "app", "mm", "gemm", dtype="bf16", m=m, n=n, k=k).product()
        bound = max(launch.flops / spec.flops["bf16"], launch.bytes / spec.bandwidth["dram"])
        db.add([Launch(**vars(launch) | {"time_s": 2 * bound})])
    data = db.samples("op")
    return KernelPredictor(n_estimators=10).fit(data.X, data.time_s, data.labels["shape"], kinds=["gemm:bf16"])


def test_predicted_gpu_pipeline(example, predictor):
    found, bounds = example(time=predictor), example()
    assert "lower bound" in bounds["source"] and found["source"].startswith("predicted")
    assert bounds["stage_s"] < found["stage_s"] < 3 * bounds["stage_s"]
    assert found["gain"] >= 1 and found["seconds"] > 8 * found["stage_s"]


def test_quantized_detector(example):
    found = example()
    assert found["moved"] > 0
    assert found["plain"] > 0.8 and found["quantized"] > found["plain"] - 0.1


def test_tuned_pfp(example):
    from netfit.errors import TargetUnavailable

    try:
        found = example()
    except TargetUnavailable as e:
        pytest.skip(str(e))
    assert found["us"] > 0 and found["mean"] < 1e-3 and found["var"] < 0.01


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_is_short_tested_and_told(script):
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"def test_{script.stem}(" in Path(__file__).read_text(encoding="utf-8")
    assert re.search(rf"examples/{script.name}\b", (ROOT / "docs" / "examples.md").read_text(encoding="utf-8"))
