"""A compression that is killed again and again ends with the result of one that was not."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 5


def command(run: Path) -> list[str]:
    """A job on a computed target with the random sampler: nothing in it depends on a clock."""
    words = "compress digits-cnn --data digits --target systolic:16x16 --latency 0.5 --sampler random --trials 12"
    return [sys.executable, "-m", "netfit", *words.split(), "--epochs", "2", "--run", str(run)]


@pytest.mark.kill
@pytest.mark.timeout(1200)
def test_killed_and_resumed_equals_undisturbed(tmp_path):
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    rng = random.Random(0)
    killed = 0
    while not (tmp_path / "killed" / "result.json").exists():
        child = subprocess.Popen(command(tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if killed < KILLS:
            time.sleep(rng.uniform(6, 25))
            child.send_signal(signal.SIGKILL)
            killed += 1
        _, err = child.communicate()
        assert child.returncode in (0, -signal.SIGKILL), err.decode()
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed")]
    for key in ("final", "layers", "chosen", "base", "history"):
        assert results[0][key] == results[1][key], key
    points = [{(t["ratio"], t["score"]) for t in r["trials"]} for r in results]
    assert points[0] == points[1]
    assert (tmp_path / "whole" / "policy.toml").read_text() == (tmp_path / "killed" / "policy.toml").read_text()
