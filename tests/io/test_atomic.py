"""Single files: whole or not at all, and bounded on the way in."""

import errno
import os
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ArtifactError
from netfit.io import read_json, remove_temporaries, write_bytes, write_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_json_takes_what_measurements_are_made_of(tmp_path):
    @dataclass
    class Point:
        bits: int
        at: Path

    write_json(tmp_path / "a.json", {"x": np.float32(0.5), "y": np.arange(3), "p": Point(8, Path("a/b")), "t": (1, 2)})
    assert read_json(tmp_path / "a.json") == {"x": 0.5, "y": [0, 1, 2], "p": {"bits": 8, "at": "a/b"}, "t": [1, 2]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1j: 2}, {(1, 2): 3}])
def test_what_is_not_json_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})
    with pytest.raises(ArtifactError, match=r"cannot write .*a\.json"):
        write_json(path, {"new": value})
    assert read_json(path) == {"old": True}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1,]", b"\xff\xfe", b"NaN", b'{"a": Infinity}', b"[" * 100_000, b"[" * 70 + b"]" * 70,
     b"[" + b"0," * 2_000_001 + b"0]", b"1" * 5000, b"nul", b'"\\ud8"'],
)  # fmt: skip
def test_bad_json_is_an_artifact_error(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"a\.json"):
        read_json(path)


def test_json_larger_than_the_bound_is_refused(tmp_path):
    write_json(tmp_path / "a.json", "x" * 100)
    with pytest.raises(ArtifactError, match=r"holds 103 bytes, the limit .* is 50"):
        read_json(tmp_path / "a.json", max_bytes=50)


def test_a_missing_file_and_a_folder_are_artifact_errors(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ArtifactError, match="cannot read"):
            read_json(path)


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_fault_at_any_step_keeps_the_old_file_and_leaves_no_temporary(tmp_path, monkeypatch, call, number):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as m:
        m.setattr(os, "fsync", fail) if call == "fsync" else m.setattr(Path, call, fail)
        with pytest.raises(ArtifactError, match=os.strerror(number)):
            write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.fixture
def full_disk():
    """The kernel itself refuses to let any file grow beyond 64 KiB: what a full disk does, without mounting one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_old_file(tmp_path, full_disk):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(ArtifactError, match=r"cannot write .*a\.bin"):
        write_bytes(path, bytes(1 << 20))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_bytes(tmp_path / "a" / "b.bin", b"")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_bytes(tmp_path, b"")


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".a.json.0123.netfit-tmp").write_bytes(b"half")
    (tmp_path / ".net.4567.netfit-tmp").mkdir()
    (tmp_path / ".net.4567.netfit-tmp" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "sub" / "a.json").write_bytes(b"1")
    remove_temporaries(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.json", "sub"]
