"""Two processes never measure at once."""

import itertools
import subprocess
import sys
import threading
import time

from netfit.targets import measure
from netfit.targets._lock import alone

HOLD = """
import sys, time
from pathlib import Path
from netfit.targets._lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

MEASURE = """
import time
from netfit.targets import measure

seen = []

def call():
    seen.append(time.monotonic())
    sum(range(2000))

for _ in range(3):
    measure({"a": call}, yardstick="a", budget_s=0.2)
    print(seen[0], seen[-1])
    seen.clear()
"""


def test_a_killed_holder_blocks_nobody(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    got = threading.Event()

    def wait():
        with alone(tmp_path):
            got.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not got.wait(0.2), "the lock is held by another process"
    holder.kill()
    assert got.wait(30)
    waiter.join()
    holder.communicate()


def test_measurements_of_two_processes_take_turns(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-c", MEASURE]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    spans = [tuple(map(float, line.split())) for c in children for line in c.communicate()[0].splitlines()]
    assert len(spans) == 6
    ordered = sorted(spans)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ordered)), ordered


def test_without_a_place_for_the_lock_nobody_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = measure({"a": lambda: sum(range(2000))}, yardstick="a", budget_s=0.02)
    assert found.timings["a"].ratio == 1.0
    before = time.monotonic()
    with alone(tmp_path / "file" / "deeper"):
        assert time.monotonic() - before < 10
