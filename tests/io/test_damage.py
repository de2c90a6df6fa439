"""Malicious and damaged artifacts: always an ArtifactError, never executed, never more memory than bounded."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.env import digest
from netfit.errors import ArtifactError, ArtifactVersionError
from netfit.io import read_artifact, write_artifact

ZERO = "0" * 64


def sealed(body):
    """A manifest whose own hash is right: what an attacker would write."""
    return json.dumps(body | {"sha256": digest(body)}).encode()


def entry(data):
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def rewrite(net, change):
    """Change the manifest with `change` and seal it again."""
    body = json.loads((net / "netfit.json").read_bytes())
    del body["sha256"]
    change(body)
    (net / "netfit.json").write_bytes(sealed(body))


def put(net, name, data):
    """Replace a member and list it correctly."""
    (net / name).write_bytes(data)
    rewrite(net, lambda body: body["members"].update({name: entry(data)}))


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype="F32", shape=(1,), start=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


class Boom:
    def __reduce__(self):
        return os._exit, (3,)  # a pickle that is loaded ends the test run


def member_name(name):
    return lambda net: rewrite(net, lambda body: body["members"].update({name: {"bytes": 0, "sha256": ZERO}}))


def manifest(data):
    return lambda net: (net / "netfit.json").write_bytes(data)


def body(**changes):
    return lambda net: rewrite(net, lambda old: old.update(changes))


def tensors(*args, **kwargs):
    return lambda net: put(net, "model.safetensors", safetensors(*args, **kwargs))


def raw_tensors(data):
    return lambda net: put(net, "model.safetensors", data)


def link(name, target):
    def make(net):
        (net / name).unlink()
        (net / name).symlink_to(target)

    return make


def folder(name):
    def make(net):
        (net / name).unlink()
        (net / name).mkdir()

    return make


def fifo(name):
    def make(net):
        (net / name).unlink()
        os.mkfifo(net / name)

    return make


def truncate(name, size):
    return lambda net: os.truncate(net / name, size)


CASES = {
    # the manifest itself
    "manifest missing": lambda net: (net / "netfit.json").unlink(),
    "manifest empty": manifest(b""),
    "manifest a list": manifest(b"[]"),
    "manifest null": manifest(b"null"),
    "manifest not text": manifest(bytes(range(256))),
    "manifest nested": manifest(b"[" * 200_000),
    "manifest huge": manifest(b" " * (9 << 20)),
    "manifest of many values": manifest(b"[" + b"[]," * 2_500_000 + b"0]"),
    "manifest a pickle": manifest(pickle.dumps(Boom())),
    "manifest with NaN": manifest(b'{"format": NaN}'),
    "manifest overflowing": manifest(b'{"format": 1, "meta": {"x": 1e999}, "members": {}, "sha256": ""}'),
    "manifest unsealed": manifest(b'{"format": 1, "meta": {}, "members": {}, "sha256": ""}'),
    "manifest a link": link("netfit.json", "/dev/zero"),
    "manifest a folder": folder("netfit.json"),
    "manifest a pipe": fifo("netfit.json"),
    "manifest half": truncate("netfit.json", 100),
    "format missing": lambda net: rewrite(net, lambda b: b.pop("format")),
    "format zero": body(format=0),
    "format text": body(format="1"),
    "format true": body(format=True),
    "format fraction": body(format=1.5),
    "field unknown": body(run="me"),
    "meta a list": body(meta=[]),
    "members a list": body(members=[]),
    "members none": body(members={}),
    "member without hash": body(members={"model.safetensors": {"bytes": 1}}),
    "member of negative size": body(members={"model.safetensors": {"bytes": -1, "sha256": ZERO}}),
    "member of endless size": body(members={"model.safetensors": {"bytes": 2**63, "sha256": ZERO}}),
    "member with a short hash": body(members={"model.safetensors": {"bytes": 1, "sha256": "0"}}),
    "members by the thousand": lambda net: rewrite(
        net, lambda b: b["members"].update({f"f{i}": {"bytes": 0, "sha256": ZERO} for i in range(1000)})
    ),
    # names of members
    "name absolute": member_name("/etc/passwd"),
    "name upwards": member_name("../netfit.json"),
    "name dots": member_name(".."),
    "name in a folder": member_name("a/b"),
    "name of Windows": member_name("C:\\x"),
    "name with a zero": member_name("a\0b"),
    "name empty": member_name(""),
    "name the manifest": member_name("netfit.json"),
    "name in other case": member_name("MODEL.safetensors"),
    "name missing on disk": member_name("gone.onnx"),
    # files on disk
    "member a link": link("model.onnx", "/etc/passwd"),
    "member a folder": folder("model.onnx"),
    "member a pipe": fifo("model.onnx"),
    "member missing": lambda net: (net / "model.onnx").unlink(),
    "member changed": lambda net: (net / "model.onnx").write_bytes(b"\1" * 64),
    "member longer": lambda net: (net / "model.onnx").write_bytes(b"\0" * 65),
    "tensors a link": link("model.safetensors", "/dev/zero"),
    "tensors missing": lambda net: (net / "model.safetensors").unlink(),
    "tensors cut": truncate("model.safetensors", 40),
    "tensors empty on disk": truncate("model.safetensors", 0),
    # tensors with correct hashes
    "tensors of no bytes": raw_tensors(b""),
    "tensors of seven bytes": raw_tensors(b"\0" * 7),
    "tensors a pickle": raw_tensors(pickle.dumps(Boom())),
    "header of 2**60 bytes": tensors(b"{}", length=2**60),
    "header of 2**64-1 bytes": tensors(b"{}", length=2**64 - 1),
    "header beyond the file": tensors(b"{}", length=3),
    "header of zero bytes": tensors(b"{}", length=0),
    "header over the limit": tensors(b"{" + b" " * (33 << 20) + b"}"),
    "header not JSON": tensors(b"not json"),
    "header a list": tensors(b"[]"),
    "header nested": tensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "header of many tensors": tensors({f"{i}": tensor(shape=(0,), end=0) for i in range(100_001)}),
    "tensor beyond the file": tensors({"a": tensor(shape=(4,), end=16)}, b"1234"),
    "tensor of 2**60 bytes": tensors({"a": tensor(shape=(2**58,), end=2**60)}, b"1234"),
    "tensor shape overflowing": tensors({"a": tensor(shape=(2**40, 2**40), end=4)}, b"1234"),
    "tensor shape of zero and endless": tensors({"a": tensor(shape=(0, 2**63), end=0)}),
    "tensor shape negative": tensors({"a": tensor(shape=(-1,))}, b"1234"),
    "tensor shape unlike its bytes": tensors({"a": tensor(shape=(2,))}, b"1234"),
    "tensor of 10,000 dimensions": tensors({"a": tensor(shape=(1,) * 10_000)}, b"1234"),
    "tensor offsets reversed": tensors({"a": tensor(start=4, end=0)}, b"1234"),
    "tensor offsets with a hole": tensors({"a": tensor(start=4, end=8)}, b"12345678"),
    "tensors overlapping": tensors({"a": tensor(), "b": tensor()}, b"1234"),
    "tensor type unknown": tensors({"a": tensor(dtype="OBJECT")}, b"1234"),
    "tensor type complex": tensors({"a": tensor(dtype="C64", end=8)}, b"12345678"),
    "tensor type not netfit's": tensors({"a": tensor(dtype="U32")}, b"1234"),
    "bytes after the tensors": tensors({"a": tensor()}, b"12345"),
    "tensor without offsets": tensors({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "net"
    write_artifact(path, {"policy": {"fc": 8}}, {"w": torch.ones(16, 16)}, {"model.onnx": bytes(64)})
    return path


@pytest.fixture
def net(good, tmp_path):
    return shutil.copytree(good, tmp_path / "net")


@pytest.mark.parametrize("damage", CASES.values(), ids=CASES.keys())
def test_every_case_is_an_artifact_error_and_takes_bounded_memory(net, damage):
    damage(net)
    size = sum(p.lstat().st_size for p in net.iterdir())
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError) as caught:
            read_artifact(net)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(net) in str(caught.value), "the message names the place"
    assert "\n" not in str(caught.value)
    assert peak <= 2 * size + (4 << 20)


def test_nothing_there_is_an_artifact_error(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "none", tmp_path / "file", tmp_path):
        with pytest.raises(ArtifactError):
            read_artifact(place)


@pytest.mark.parametrize("version", [2, 10**9, 10**300])
def test_a_newer_format_names_both_versions(net, version):
    rewrite(net, lambda old: old.update(format=version, unknown="field"))
    with pytest.raises(ArtifactVersionError, match=r"format .* reads up to 1"):
        read_artifact(net)


def test_what_is_not_listed_is_not_read(net):
    (net / "evil.so").symlink_to("/etc/passwd")
    assert set(read_artifact(net).files) == {"model.onnx"}


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(1, 255)),
        st.tuples(st.just("cut"), st.integers(0, 10**6), st.integers(1, 64)),
        st.tuples(st.just("insert"), st.integers(0, 10**6), st.binary(min_size=1, max_size=16)),
    ),
    min_size=1,
    max_size=4,
)


def edited(data, edits):
    out = bytearray(data)
    for kind, at, what in edits:
        at %= max(len(out), 1)
        if kind == "flip" and out:
            out[at] ^= what
        elif kind == "cut":
            del out[at : at + what]
        elif kind == "insert":
            out[at:at] = what
    return bytes(out)


def read_or_artifact_error(net):
    try:
        return read_artifact(net)
    except ArtifactError:
        return None


@settings(max_examples=300)
@given(st.sampled_from(["netfit.json", "model.safetensors", "model.onnx"]), EDITS)
def test_random_damage_is_found(good, tmp_path_factory, name, edits):
    net = shutil.copytree(good, tmp_path_factory.mktemp("fuzz") / "net")
    data = edited((good / name).read_bytes(), edits)
    (net / name).write_bytes(data)
    back = read_or_artifact_error(net)
    if back is not None:  # only white space of the manifest, or edits that undo each other, may pass
        assert back.meta == {"policy": {"fc": 8}} and back.tensors["w"].sum() == 256
        assert data == (good / name).read_bytes() or name == "netfit.json"
    shutil.rmtree(net.parent)


@settings(max_examples=300)
@given(EDITS)
def test_random_tensors_with_a_right_hash_end_in_an_artifact_error_or_tensors(good, tmp_path_factory, edits):
    net = shutil.copytree(good, tmp_path_factory.mktemp("fuzz") / "net")
    put(net, "model.safetensors", edited((good / "model.safetensors").read_bytes(), edits))
    back = read_or_artifact_error(net)
    assert back is None or all(isinstance(t, torch.Tensor) for t in back.tensors.values())
    shutil.rmtree(net.parent)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["format", "meta", "members", "sha256", "x"]), JSON))
def test_any_json_as_the_manifest_is_an_artifact_error(good, tmp_path_factory, value):
    net: Path = tmp_path_factory.mktemp("fuzz") / "net"
    net.mkdir()
    (net / "netfit.json").write_text(json.dumps(value))
    assert read_or_artifact_error(net) is None
    shutil.rmtree(net.parent)
