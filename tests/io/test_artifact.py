"""The artifact: what goes in comes out, and a failed write leaves the old one."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ArtifactError
from netfit.io import read_artifact, read_json, write_artifact

TENSORS = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False]), "s": torch.tensor(7)}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_round_trip(tmp_path):
    write_artifact(tmp_path / "net", {"policy": {"fc": [1, 2]}, "t": (1,)}, TENSORS, {"model.onnx": b"\0\1"})
    back = read_artifact(tmp_path / "net")
    assert back.meta == {"policy": {"fc": [1, 2]}, "t": [1]}
    assert same(back.tensors, TENSORS)
    assert back.files == {"model.onnx": b"\0\1"}
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == ["model.onnx", "model.safetensors", "netfit.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4)),
        max_size=5,
    )
)
def test_every_type_shape_and_name_comes_back(tmp_path_factory, kinds):
    path = tmp_path_factory.mktemp("any") / "net"
    tensors = {name: torch.randint(0, 2, shape).to(dtype) for name, (dtype, shape) in kinds.items()}
    write_artifact(path, {}, tensors)
    assert same(read_artifact(path).tensors, tensors)


def test_the_tensors_are_plain_safetensors(tmp_path):
    from safetensors.torch import load_file

    write_artifact(tmp_path / "net", {}, TENSORS)
    assert same(load_file(tmp_path / "net" / "model.safetensors"), TENSORS)


def test_tied_views_and_transposed_tensors(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    tied = {"a": base, "b": base, "row": base[1], "t": base.t(), "p": torch.nn.Parameter(base), "e": torch.empty(0)}
    write_artifact(tmp_path / "net", {}, tied)
    back = read_artifact(tmp_path / "net").tensors
    assert same(back, {k: v.detach() for k, v in tied.items()})
    back["a"].zero_()
    assert back["b"].sum() == 15, "tensors read back own their memory"


def test_what_was_read_outlives_the_file(tmp_path):
    write_artifact(tmp_path / "net", {}, TENSORS)
    back = read_artifact(tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"")  # a mapped view would crash here
    assert same(back.tensors, TENSORS)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, dtype=torch.complex64), torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")],
    ids=["complex", "sparse", "meta"],
)
def test_a_tensor_that_cannot_be_stored_names_itself(tmp_path, tensor):
    with pytest.raises(ArtifactError, match=r"net: tensor 'odd'"):
        write_artifact(tmp_path / "net", {}, {"odd": tensor})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "..\\a", "C:a", "netfit.json", "Model.safetensors", ".x", "x" * 200, "a\0", 7]
)
def test_member_names_that_are_refused_when_writing(tmp_path, name):
    with pytest.raises(ArtifactError, match="member name"):
        write_artifact(tmp_path / "net", {}, {}, {name: b""})


@pytest.mark.parametrize("meta", [{"x": float("nan")}, {"x": object()}])
def test_meta_data_that_is_not_json_keeps_the_old_artifact(tmp_path, meta):
    write_artifact(tmp_path / "net", {"old": 1}, TENSORS)
    with pytest.raises(ArtifactError, match="not JSON"):
        write_artifact(tmp_path / "net", meta, {})
    assert read_artifact(tmp_path / "net").meta == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_an_artifact_is_replaced_as_a_whole(tmp_path):
    write_artifact(tmp_path / "net", {"n": 1}, TENSORS, {"a.txt": b"a"})
    write_artifact(tmp_path / "net", {"n": 2}, {})
    back = read_artifact(tmp_path / "net")
    assert (back.meta, back.tensors, back.files) == ({"n": 2}, {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_folder_with_other_things_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("dear")
    with pytest.raises(ArtifactError):
        write_artifact(tmp_path / "home", {}, {})
    write_artifact(tmp_path / "net", {}, {})
    (tmp_path / "net" / "notes.txt").write_text("dear")
    with pytest.raises(ArtifactError, match=r"notes\.txt"):
        write_artifact(tmp_path / "net", {}, {})
    (tmp_path / "file").write_text("dear")
    with pytest.raises(ArtifactError, match="file"):
        write_artifact(tmp_path / "file", {}, {})
    assert (tmp_path / "home" / "thesis.txt").read_text() == (tmp_path / "net" / "notes.txt").read_text() == "dear"


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_fault_at_any_step_keeps_the_old_artifact(tmp_path, monkeypatch, call, number):
    write_artifact(tmp_path / "net", {"old": 1}, TENSORS)

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as m:
        m.setattr(os, "fsync", fail) if call == "fsync" else m.setattr(Path, call, fail)
        with pytest.raises(ArtifactError):
            write_artifact(tmp_path / "net", {"new": 1}, TENSORS)
    assert read_artifact(tmp_path / "net").meta == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_fault_between_the_two_renames_puts_the_old_artifact_back(tmp_path, monkeypatch):
    write_artifact(tmp_path / "net", {"old": 1}, TENSORS)
    rename = Path.rename

    def fail_second(self, target):
        if self.name.endswith(".netfit-tmp"):
            raise OSError(errno.EIO, "I/O error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(ArtifactError):
        write_artifact(tmp_path / "net", {"new": 1}, TENSORS)
    assert read_artifact(tmp_path / "net").meta == {"old": 1}


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    write_artifact(tmp_path / "net", {"old": 1}, TENSORS)
    (tmp_path / "net").rename(tmp_path / ".net.netfit-old")
    assert read_artifact(tmp_path / "net").meta == {"old": 1}
    write_artifact(tmp_path / "net", {"new": 1}, TENSORS)
    assert read_artifact(tmp_path / "net").meta == {"new": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_full_disk_keeps_the_old_artifact(tmp_path):
    write_artifact(tmp_path / "net", {"old": 1}, TENSORS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        with pytest.raises(ArtifactError, match=r"cannot write .*net"):
            write_artifact(tmp_path / "net", {"new": 1}, {"big": torch.zeros(1 << 20)})
        with pytest.raises(ArtifactError, match=r"cannot write .*net"):
            write_artifact(tmp_path / "net", {"new": 1}, {}, {"big.bin": bytes(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_artifact(tmp_path / "net").meta == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


MEASURE = """
import resource, sys, safetensors.torch, torch
from netfit.io import read_artifact
from netfit.io._atomic import write_bytes
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
artifact = read_artifact(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024)
"""


def test_reading_takes_at_most_twice_the_size(tmp_path):
    """Peak resident memory, which counts the pages of the mapped file too, in a process of its own."""
    write_artifact(tmp_path / "net", {}, {f"w{i}": torch.ones(4 << 20) for i in range(4)})  # 64 MiB
    size = read_json(tmp_path / "net" / "netfit.json")["members"]["model.safetensors"]["bytes"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "net")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= 2.1 * size
