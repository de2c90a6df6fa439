"""The other end of `Remote`: a small HTTP server that measures the ONNX files it is sent.

One request at a time, on purpose: two measurements must never overlap, and process CPU time counts every thread.
"""

import contextlib
import hmac
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from netfit.errors import ConfigError, NetfitError, TargetUnavailable, require
from netfit.io import write_bytes

from ._host import HostCPU

MAX_MODEL_BYTES = 512 << 20
MAX_STORE_BYTES = 2 << 30
MAX_QUESTION_BYTES = 1 << 20
MAX_BUDGET_S = 60.0
_IDLE_S = 30  # a client that stops talking is dropped, since everybody else waits for it


class Server(HTTPServer):
    """The listening server; port 0 takes a free one, found in ``server_port``."""

    def __init__(self, address: tuple[str, int], token: str) -> None:
        if len(token) < 16:
            raise ConfigError(
                f"the token has {len(token)} characters; take at least 16, such as `openssl rand -hex 16`"
            )
        self.token = token
        self._folder = tempfile.TemporaryDirectory(prefix="netfit-serve-")
        self.store = Path(self._folder.name)
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as e:
            self._folder.cleanup()
            raise TargetUnavailable(f"cannot listen on {address[0]}:{address[1]}: {e}") from e

    def server_close(self) -> None:
        """Close the socket and forget the files."""
        super().server_close()
        self._folder.cleanup()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is its own affair; anything else is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(host: str = "127.0.0.1", port: int = 8765, *, token: str) -> None:
    """Measure for :class:`Remote` until interrupted.

    Whoever has the token can make this machine load ONNX files, so listen on the loopback address and let users
    come through an SSH tunnel, or listen only in a network you trust.

    Args:
        host: address to listen on; loopback by default.
        port: where to listen.
        token: secret of at least 16 characters that every request must bear.

    Raises:
        ConfigError: the token is too short.
        TargetUnavailable: the address is taken or not this machine's.
    """
    with Server((host, port), token) as server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


class _RefusedError(Exception):
    """A request that gets an error status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = _IDLE_S

    def do_PUT(self) -> None:
        """Store a model under its digest."""
        self._answer(self._store)

    def do_POST(self) -> None:
        """Answer a question about stored models."""
        self._answer(self._measure)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the caller reports what went wrong."""

    def _answer(self, work: Callable[[], dict[str, Any]]) -> None:
        try:
            given = self.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
                raise _RefusedError(401, "wrong token")
            status, answer = 200, work()
        except _RefusedError as e:
            status, answer = e.status, {"error": str(e)}
        except NetfitError as e:
            status = 503 if isinstance(e, TargetUnavailable) else 400 if isinstance(e, ValueError) else 500
            answer = {"error": str(e)}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self, limit: int) -> bytes:
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit()):
            raise _RefusedError(411, "Content-Length is missing")
        if len(text) > 12 or int(text) > limit:
            raise _RefusedError(413, f"the request holds {text} bytes, at most {limit} are taken")
        data = self.rfile.read(int(text))
        if len(data) != int(text):
            raise _RefusedError(400, "the request was cut off")
        return data

    def _store(self) -> dict[str, Any]:
        data = self._body(MAX_MODEL_BYTES)
        digest = sha256(data).hexdigest()
        if self.path != f"/model/{digest}":
            raise _RefusedError(400, f"the content has digest {digest[:12]}, not that of {self.path[:80]!r}")
        _check_self_contained(data)
        files = sorted(self.server.store.glob("*.onnx"), key=lambda f: f.stat().st_mtime)
        while files and sum(f.stat().st_size for f in files) + len(data) > MAX_STORE_BYTES:
            files.pop(0).unlink()
        write_bytes(self.server.store / f"{digest}.onnx", data)
        return {"stored": digest}

    def _measure(self) -> dict[str, Any]:
        question = self._question()
        host = HostCPU(
            question["runtime"], question["threads"], budget_s=question["budget_s"], cache=self.server.store / "kept"
        )
        if self.path == "/has":
            return {"has": self._file(question.get("model")).is_file()}
        if self.path == "/facts":
            facts = {"spec": asdict(host.spec), "channel_step": host.channel_step, "fingerprint": host.fingerprint()}
            return {**facts, "precisions": host.precisions(str(question.get("kind")))}
        if self.path == "/cost":
            return host.file_cost(self._stored(question.get("model"))).to_json()
        if self.path == "/memory":
            return asdict(host.peak_memory(self._stored(question.get("model"))))
        if self.path == "/latency":
            models = question.get("models")
            if not isinstance(models, dict) or len(models) > 100:
                raise _RefusedError(400, "models must map at most 100 names to digests")
            networks = {name: self._stored(digest) for name, digest in models.items()}
            return host.latency(networks, str(question.get("yardstick"))).to_json()
        raise _RefusedError(404, f"no such question: {self.path[:80]!r}")

    def _question(self) -> dict[str, Any]:
        try:
            question = json.loads(self._body(MAX_QUESTION_BYTES))
            budget = float(question["budget_s"])
            threads = question["threads"]
            if not (math.isfinite(budget) and 0 < budget <= MAX_BUDGET_S) or type(threads) is not int:
                raise ValueError(f"budget_s must lie in (0, {MAX_BUDGET_S:g}] and threads be a whole number")
            if question["runtime"] not in ("openvino", "onnxruntime"):
                raise ValueError(f"runtime {question['runtime']!r} is not openvino or onnxruntime")
            return {**question, "budget_s": budget}
        except (ValueError, TypeError, KeyError, RecursionError) as e:
            raise _RefusedError(400, f"not a question: {e}") from e

    def _file(self, digest: Any) -> Path:
        """Place of a model; only digests are names, so no request can point elsewhere."""
        if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise _RefusedError(400, "a model is named by the 64 hexadecimal digits of its SHA-256")
        return self.server.store / f"{digest}.onnx"

    def _stored(self, digest: Any) -> Path:
        path = self._file(digest)
        if not path.is_file():
            raise _RefusedError(400, f"model {digest[:12]} is not here: send it first")
        path.touch()  # the oldest unused go first when the store is full
        return path


def _check_self_contained(data: bytes) -> None:
    """Refuse what is no ONNX model, and tensors kept in other files: their paths would be read on this machine."""
    onnx = require("onnx", "export")
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as e:  # protobuf raises types of its own
        raise _RefusedError(400, f"not an ONNX model: {str(e).strip()[:200]}") from e
    if any(t.data_location == t.EXTERNAL for t in _tensors(proto)):
        raise _RefusedError(400, "the model keeps tensors in other files; store them in the model")


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a protobuf message, however deep in subgraphs and functions."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)
