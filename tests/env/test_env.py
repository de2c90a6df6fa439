"""Fingerprints and digests."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit import env
from netfit.errors import ConfigError


def test_the_fingerprint_is_json_stable_and_names_the_installed_versions():
    from importlib.metadata import version

    first = env.fingerprint()
    assert json.loads(json.dumps(first)) == first == env.fingerprint()
    assert first["packages"]["torch"] == version("torch")
    assert first["python"] == sys.version.split()[0]
    assert first["cores"] >= 1 and first["host"] == env.host_id()


def test_the_fingerprint_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'openvino', 'optuna'}"
    code = f"import sys, netfit.env as env; env.fingerprint(); print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_thread_variables_that_are_set_are_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert env.fingerprint()["threads"]["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in env.fingerprint()["threads"]


def test_a_machine_without_proc_git_or_governor_has_a_fingerprint_too(monkeypatch):
    def nothing(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", nothing)
    monkeypatch.setattr(subprocess, "run", nothing)
    try:
        env._cpu.cache_clear()
        env._git.cache_clear()
        bare = env.fingerprint()
    finally:
        env._cpu.cache_clear()
        env._git.cache_clear()
    assert (bare["governor"], bare["git"], bare["cpu_flags"]) == (None, None, [])
    assert bare["cpu"]


@pytest.mark.parametrize("key", ["model name", "Features"])
def test_flags_that_matter_are_read_from_x86_and_arm(monkeypatch, key):
    text = "processor : 0\nmodel name\t: Fast 9\nflags\t: fpu avx2 avx512_vnni\n"
    if key == "Features":
        text = "processor : 0\nFeatures\t: fp asimd sve i8mm\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **kwargs: text)
    env._cpu.cache_clear()
    model, flags = env._cpu()
    env._cpu.cache_clear()
    assert flags == (("asimd", "i8mm", "sve") if key == "Features" else ("avx2", "avx512_vnni"))
    assert model == "Fast 9" or key == "Features"


def test_the_commit_of_somebody_elses_repository_is_not_ours(monkeypatch, tmp_path):
    monkeypatch.setattr(env, "_git_output", lambda *args: f"{tmp_path}\nabc\n")
    env._git.cache_clear()
    assert env._git() is None
    env._git.cache_clear()


@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.floats(allow_nan=False, allow_infinity=False)))
)
def test_a_digest_depends_on_the_value_only(value):
    assert env.digest(value) == env.digest(dict(reversed(value.items())))
    assert len(env.digest(value)) == 64
    assert env.digest(value) != env.digest([value])


@pytest.mark.parametrize("value", [object(), float("nan"), {1: 0, "a": 0}, {(1,): 2}])
def test_a_value_without_json_has_no_digest(value):
    with pytest.raises(ConfigError, match="digest"):
        env.digest(value)


def test_arrays_have_a_digest():
    assert env.digest(np.arange(3)) == env.digest([0, 1, 2])
    assert env.digest({"x": np.int64(3)}) == env.digest({"x": 3})
