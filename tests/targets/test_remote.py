"""A remote host over loopback."""

import http.client
import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import nn

from netfit.errors import ArtifactError, ConfigError, NetfitError, TargetUnavailable
from netfit.targets import HostCPU, Remote, _server, serve

TOKEN = "0123456789abcdef"


@pytest.fixture
def server() -> Iterator[_server.Server]:
    with _server.Server(("127.0.0.1", 0), TOKEN) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def remote(server: _server.Server) -> Remote:
    return Remote(f"http://127.0.0.1:{server.server_port}", TOKEN, runtime="onnxruntime", budget_s=0.05)


def raw(server: _server.Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.putrequest(method, path)
        for name, value in ({"Authorization": f"Bearer {TOKEN}", "Content-Length": str(len(body))} | headers).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_answers_as_the_host_itself_would(remote: Remote, files: dict[str, Path], tiny: nn.Module, tmp_path) -> None:
    here = HostCPU("onnxruntime", cache=tmp_path)
    assert remote.fingerprint() == {**here.fingerprint(), "target": "remote"}
    assert remote.spec == here.spec
    assert remote.channel_step == here.channel_step
    assert remote.precisions("conv2d") == here.precisions("conv2d")
    table = remote.cost(tiny, torch.randn(1, 3, 16, 16))
    assert table.group("kind:conv2d").names == ("conv", "again")
    found = remote.latency({"base": files["w16"], "small": files["w8"]}, "base")
    assert found.timings["base"].ratio == 1.0
    assert set(found.timings) == {"base", "small"}
    assert remote.peak_memory(files["w8"]).added_bytes > 0


def test_a_file_travels_once_and_the_store_is_bounded(
    server: _server.Server, remote: Remote, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = remote._send(files["w8"])
    stamp = (server.store / f"{digest}.onnx").stat().st_ino
    assert remote._send(files["w8"]) == digest
    assert (server.store / f"{digest}.onnx").stat().st_ino == stamp
    monkeypatch.setattr(_server, "MAX_STORE_BYTES", files["w16"].stat().st_size + 10)
    remote._send(files["w16"])
    assert [f.name for f in server.store.glob("*.onnx")] == [f"{sha256(files['w16'].read_bytes()).hexdigest()}.onnx"]


def test_unreachable_names_url_and_remedy() -> None:
    with pytest.raises(TargetUnavailable, match=r"http://127\.0\.0\.1:9.*python -m netfit\.targets"):
        Remote("http://127.0.0.1:9", TOKEN).fingerprint()


def test_wrong_token_is_refused(server: _server.Server, remote: Remote) -> None:
    with pytest.raises(TargetUnavailable, match="wrong token"):
        Remote(remote.url, "y" * 16).fingerprint()
    assert raw(server, "POST", "/facts", Authorization="")[0] == 401


def test_errors_of_the_other_side_come_back_as_they_are(remote: Remote, files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'base'"):
        remote.latency({"base": files["w8"]}, "bse")


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "says"),
    [
        ("PUT", "/model/" + "0" * 64, b"abc", {}, 400, "digest"),
        ("PUT", "/model/" + sha256(b"abc").hexdigest(), b"abc", {}, 400, "not an ONNX model"),
        ("PUT", "/model/../../x", b"abc", {}, 400, "digest"),
        ("PUT", "/model/x", b"", {"Content-Length": "99999999999"}, 413, "at most"),
        ("PUT", "/model/x", b"", {"Content-Length": "-1"}, 411, "Content-Length"),
        ("POST", "/cost", b"{", {}, 400, "not a question"),
        ("POST", "/cost", b"[" * 100_000, {}, 400, "not a question"),
        ("POST", "/cost", b"{}", {}, 400, "not a question"),
    ],
)
def test_bad_requests_get_an_error(server, method, path, body, headers, status, says) -> None:
    got, answer = raw(server, method, path, body, **headers)
    assert got == status
    assert says in answer["error"]


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        ("/cost", {"model": "../../etc/passwd"}, "64 hexadecimal"),
        ("/cost", {"model": "0" * 64}, "send it first"),
        ("/cost", {"threads": True}, "whole number"),
        ("/cost", {"threads": 0, "model": "0" * 64}, "threads=0"),
        ("/cost", {"budget_s": 1e9}, "budget_s"),
        ("/cost", {"budget_s": "nan"}, "budget_s"),
        ("/cost", {"runtime": "torch"}, "runtime"),
        ("/latency", {"models": 3}, "at most 100"),
        ("/nothing", {}, "no such question"),
    ],
)
def test_bad_questions_get_an_error(server: _server.Server, path: str, more: dict, says: str) -> None:
    body = json.dumps({"runtime": "onnxruntime", "threads": 1, "budget_s": 0.1, **more}).encode()
    status, answer = raw(server, "POST", path, body)
    assert status in (400, 404)
    assert says in answer["error"]


def test_tensors_in_other_files_are_refused(server: _server.Server, files: dict[str, Path]) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(files["w8"])
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "/etc/hostname")
    data = proto.SerializeToString()
    status, answer = raw(server, "PUT", f"/model/{sha256(data).hexdigest()}", data)
    assert status == 400
    assert "other files" in answer["error"]


def test_a_stranger_at_the_port_is_recognised(server: _server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote(f"http://127.0.0.1:{server.server_port}", TOKEN)
    monkeypatch.setattr(_server.json, "dumps", lambda _: "<html>")
    with pytest.raises(ArtifactError, match="does not say"):
        remote._request("POST", "/facts", b"{}")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:1", "https://h:1", "http://h", "http://h:x", "http://h:1/path", "http://:1"]
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="http://host:port"):
        Remote(url, TOKEN)


def test_bad_settings(server: _server.Server) -> None:
    with pytest.raises(ConfigError, match="token is empty"):
        Remote("http://h:1", "")
    with pytest.raises(ConfigError, match="at least 16"):
        serve(port=0, token="short")
    with pytest.raises(TargetUnavailable, match="cannot listen"):
        serve(port=server.server_port, token=TOKEN)
    with pytest.raises(NetfitError, match="cannot listen"):
        serve(port=99999, token=TOKEN)
