"""Killing a writer at any moment leaves a whole artifact: the one before or the one after."""

import random
import subprocess
import sys
import time

import pytest

from netfit.io import read_artifact, remove_temporaries, write_artifact

WRITER = """
import itertools, sys, torch
from netfit.io import write_artifact
for n in itertools.count(int(sys.argv[2])):
    write_artifact(sys.argv[1], {"n": n}, {"w": torch.full((1000,), float(n))}, {"n.txt": str(n).encode()})
    print(n, flush=True)
"""


@pytest.mark.kill
def test_a_killed_writer_leaves_a_whole_artifact(tmp_path):
    rng, last = random.Random(0), 0
    for _ in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "net"), str(last)], stdout=subprocess.PIPE, text=True
        )
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.1))
        writer.kill()
        told = [int(line) for line in writer.communicate()[0].splitlines()]
        back = read_artifact(tmp_path / "net")
        n = back.meta["n"]
        assert back.files == {"n.txt": str(n).encode()}
        assert (back.tensors["w"] == n).all()
        assert n >= max(told, default=last), "what was reported as written is there"
        last = n
    remove_temporaries(tmp_path)
    write_artifact(tmp_path / "net", {"n": last + 1}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
