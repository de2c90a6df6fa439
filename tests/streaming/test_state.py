"""A state comes back as it was, in a process without torch, or not at all."""

import subprocess
import sys

import numpy as np
import pytest

from netfit.errors import ArtifactError, ConfigError
from netfit.streaming import load_state, save_state

STATE = {
    "step": 7,
    "names": ["a", "b"],
    "deep": {"rows": np.array([[1.0, np.nan]]), "flags": np.array([True, False]), "none": None, "empty": {}},
}


def test_a_state_comes_back(tmp_path):
    save_state(tmp_path / "s", "demo", STATE, {"size": (1, 2)})
    back = load_state(tmp_path / "s", "demo", {"size": (1, 2)})
    assert back["step"] == 7 and back["names"] == ["a", "b"] and back["deep"]["empty"] == {}
    assert back["deep"]["none"] is None
    assert np.array_equal(back["deep"]["rows"], STATE["deep"]["rows"], equal_nan=True)
    assert back["deep"]["flags"].dtype == bool
    back["deep"]["rows"][0, 0] = 2  # writable


def test_another_kind_or_setting_is_refused(tmp_path):
    save_state(tmp_path / "s", "demo", STATE, {"group_by": "rack"})
    with pytest.raises(ArtifactError, match="no state of 'other' but 'demo'"):
        load_state(tmp_path / "s", "other")
    with pytest.raises(ConfigError, match="state of group_by='rack', not 'node'"):
        load_state(tmp_path / "s", "demo", {"group_by": "node"})


def test_values_without_a_form_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no name in a state"):
        save_state(tmp_path / "s", "demo", {"a/b": 1})
    with pytest.raises(ArtifactError, match="no form in safetensors"):
        save_state(tmp_path / "s", "demo", {"text": np.array(["a"])})
    assert not (tmp_path / "s").exists()


def test_states_need_no_torch(tmp_path):
    code = (
        "import sys, numpy as np; from netfit.streaming import load_state, save_state\n"
        f"save_state({str(tmp_path / 's')!r}, 'demo', {{'x': np.arange(3)}})\n"
        f"print(load_state({str(tmp_path / 's')!r}, 'demo')['x'].sum(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
