"""What importing netfit costs: nothing heavy at the door, and no extra that was not asked for."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = ["numpy", "optuna", "sklearn", "torch", "tvm"]
EXTRAS = ["ortools", "soundfile", "openvino", "onnx", "onnxruntime", "onnxscript", "matplotlib", "ziglang", "onnx_ir"]

SHOW_HEAVY = f"print(*sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"

RUN_MAIN = f"""
import runpy, sys
sys.argv = ["netfit", *sys.argv[1:]]
try:
    runpy.run_module("netfit", run_name="__main__", alter_sys=True)
except SystemExit as e:
    assert not e.code, e.code
{SHOW_HEAVY}
"""

# One process that has loaded torch forks a child per room: a fresh import each, without paying for torch each time.
EACH_ROOM = f"""
import importlib, json, os, sys, torch, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ImportError(name + " is not installed", name=name)
sys.meta_path.insert(0, Absent())
def error(room):
    try:
        importlib.import_module("netfit." + room)
    except BaseException as e:
        return repr(e)
for room in sys.argv[1:]:
    if os.fork() == 0:
        print(json.dumps([room, error(room)]), flush=True)
        os._exit(0)
    os.wait()
"""


def python(code, *arguments, warnings="default", **environment):
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def test_import_netfit_loads_nothing_heavy():
    done = python(f"import sys, netfit; {SHOW_HEAVY}")
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_help_loads_nothing_heavy():
    done = python(RUN_MAIN, "--help")
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "compress" in done.stdout and "cost" in done.stdout


def test_every_public_name_of_the_package_can_be_imported():
    done = python("import netfit", EAGER_IMPORT="1")
    assert done.returncode == 0, done.stderr[-500:]


@pytest.fixture(scope="module")
def import_errors(rooms):
    done = python(EACH_ROOM, *rooms, warnings="error")
    return dict(json.loads(line) for line in done.stdout.splitlines()), done.stderr


def test_a_room_imports_without_warnings_and_without_extras(room, import_errors):
    errors, stderr = import_errors
    assert room in errors, stderr[-500:]
    assert errors[room] is None
