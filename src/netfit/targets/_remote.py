"""Measuring on another machine that runs `netfit.targets.serve`."""

import http.client
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from netfit.deploy import export
from netfit.errors import ArtifactError, ConfigError, TargetError, TargetUnavailable

from ._base import DeviceSpec, Target
from ._cache import file_digest
from ._measure import Measurement
from ._memory import PeakMemory
from ._profile import checked_model, with_kinds
from ._table import CostTable

TOKEN_VARIABLE = "NETFIT_REMOTE_TOKEN"
MAX_REPLY_BYTES = 16 << 20


class Remote(Target):
    """A processor elsewhere, measured by the netfit that runs there.

    Networks travel as ONNX files, answers as JSON; nothing else crosses the wire. The connection is not
    encrypted: reach a machine outside your own network through an SSH tunnel.

    Args:
        url: where :func:`serve` listens, such as ``"http://127.0.0.1:8765"``.
        token: the secret of that server.
        runtime: ``"openvino"`` or ``"onnxruntime"``.
        threads: threads of one inference.
        budget_s: wall seconds of one measurement.
        timeout_s: how long one answer may take beyond the budget.

    Raises:
        ConfigError: the URL is not of the form ``http://host:port``, or the token is empty.
    """

    kind = "measured"

    def __init__(
        self,
        url: str,
        token: str,
        *,
        runtime: str = "openvino",
        threads: int = 1,
        budget_s: float = 3.0,
        timeout_s: float = 120.0,
    ) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme != "http" or not parts.hostname or port is None or parts.path.strip("/"):
            raise ConfigError(f"remote URL {url!r}: write http://host:port")
        if not token:
            raise ConfigError(f"remote {url}: the token is empty; give the one the server was started with")
        self.url, self._host, self._port, self._token = url, parts.hostname, port, token
        self._patience_s = budget_s + timeout_s
        self._settings = {"runtime": runtime, "threads": threads, "budget_s": budget_s}

    @property
    def spec(self) -> DeviceSpec:
        """What the machine says of itself."""
        return DeviceSpec(**self._facts()["spec"])

    @property
    def channel_step(self) -> int:
        """As :attr:`HostCPU.channel_step` there."""
        return int(self._facts()["channel_step"])

    def fingerprint(self) -> dict[str, Any]:
        """Processor, runtime, version and threads of that machine."""
        return {**self._facts()["fingerprint"], "target": "remote"}

    def precisions(self, kind: str) -> tuple[str, ...]:
        """As :meth:`HostCPU.precisions` there."""
        return tuple(self._ask("/facts", kind=kind)["precisions"])

    def cost(self, workload_or_model: Any, *example_inputs: Any, policy: Any = None) -> CostTable:
        """Seconds of one inference measured on that machine, layer by layer; see :meth:`HostCPU.cost`.

        Raises:
            ConfigError: given a workload, which cannot be run.
            TargetUnavailable: nobody answers at the URL.
        """
        model = checked_model(workload_or_model, example_inputs, policy)
        with tempfile.TemporaryDirectory() as folder:
            digest = self._send(export(model, example_inputs, Path(folder) / "model.onnx").path)
        return with_kinds(CostTable.from_json(self._ask("/cost", model=digest)), model, example_inputs)

    def latency(self, networks: Mapping[str, str | Path], yardstick: str) -> Measurement:
        """Time exported ``.onnx`` files there, in turns with one of them; see :meth:`HostCPU.latency`.

        Args:
            networks: files by name.
            yardstick: name of the file every ratio refers to.
        """
        models = {name: self._send(Path(path)) for name, path in networks.items()}
        return Measurement.from_json(self._ask("/latency", models=models, yardstick=yardstick))

    def peak_memory(self, path: str | Path) -> PeakMemory:
        """Peak resident memory of loading and running a file there; see :meth:`HostCPU.peak_memory`."""
        return PeakMemory.from_json(self._ask("/memory", model=self._send(Path(path))))

    def _facts(self) -> dict[str, Any]:
        return self._ask("/facts", kind="conv2d")

    def _send(self, path: Path) -> str:
        """Bring a file to the server, unless it has it, and return the digest it goes by."""
        digest = file_digest(path)
        if not self._ask("/has", model=digest)["has"]:
            self._request("PUT", f"/model/{digest}", path.read_bytes())
        return digest

    def _ask(self, path: str, **question: Any) -> dict[str, Any]:
        return self._request("POST", path, json.dumps({**self._settings, **question}).encode())

    def _request(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._patience_s)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self._token}"})
            reply = connection.getresponse()
            data = reply.read(MAX_REPLY_BYTES + 1)
        except (OSError, http.client.HTTPException) as e:
            raise TargetUnavailable(
                f"no answer from {self.url} ({e}): start `python -m netfit.targets` there, check the "
                "port and any tunnel"
            ) from e
        finally:
            connection.close()
        try:
            answer = json.loads(data)
            if len(data) > MAX_REPLY_BYTES or not isinstance(answer, dict):
                raise ValueError("not a bounded JSON object")
        except (ValueError, RecursionError) as e:
            raise ArtifactError(f"{self.url} answered something that netfit's server does not say: {e}") from e
        if reply.status == 200:
            return answer
        message = f"{self.url}: {str(answer.get('error', reply.reason))[:500]}"
        if reply.status in (401, 503):
            raise TargetUnavailable(message)
        raise (ConfigError if reply.status == 400 else TargetError)(message)


def from_text(argument: str) -> Remote:
    """Factory of ``"remote:<url>"``; the token comes from the environment, where other users cannot read it."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise ConfigError(f"target 'remote:{argument}' needs its token in the environment variable {TOKEN_VARIABLE}")
    return Remote(argument, token)
