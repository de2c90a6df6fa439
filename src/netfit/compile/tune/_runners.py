"""Who tries kernels: a process of its own here, an emulator, or a board over the network.

Every candidate is a program that tests and times itself, so a crash, a hang or a wrong result is a record and nothing
else. A board needs no Python: `serve` is a static program that takes other programs.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netfit.env import host_id
from netfit.errors import ConfigError, TargetError, TargetUnavailable
from netfit.kernels import toolchain
from netfit.kernels._ops import source

from .._space import Config
from ..ops import Machine, Operator, build_program, emulator, machine
from ..ops._build import environment
from ._records import Outcome

__all__ = ["LocalRunner", "RemoteRunner", "serve"]

_MOST_ANSWER = 4096


class LocalRunner:
    """Builds kernels and runs each in a process of its own, on this machine or through qemu.

    Args:
        op: what is computed.
        target: machine by name; one that is not the host needs zig to build and qemu to run.
        repeats: of each kernel; the least time counts.
        budget_s: seconds that the repeats of one kernel may take.
        timeout_s: after which a kernel is killed.

    Raises:
        TargetUnavailable: there is no compiler, or nothing that runs the programs here.
    """

    def __init__(
        self, op: Operator, target: str = "host", repeats: int = 30, budget_s: float = 0.3, timeout_s: float = 60.0
    ) -> None:
        self.op, self.machine = op, machine(target)
        found = emulator(self.machine)
        if found is None:
            raise TargetUnavailable(f"programs for {target} run here only with qemu-user: apt-get install qemu-user")
        self._before = list(found)
        self._words = [str(repeats), str(budget_s)]
        self._timeout_s = timeout_s
        self.target = _fingerprint(self.machine, "emulated" if found else "host")

    def run(self, configs: Sequence[Config]) -> dict[Config, Outcome]:
        """Outcome of every configuration, one after the other."""
        return {config: self._one(config) for config in configs}

    def _one(self, config: Config) -> Outcome:
        text, blocks = self.op.program(config, self.machine)
        try:
            program = build_program(text, self.machine)
        except TargetUnavailable:
            raise
        except TargetError as e:
            return Outcome("invalid_compile", detail=str(e)[:200])
        command = [*self._before, str(program), *self._words, *blocks]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self._timeout_s, env=environment(), check=False
            )
        except subprocess.TimeoutExpired:
            return Outcome("timeout", detail=f"killed after {self._timeout_s:g} s")
        if done.returncode < 0:
            return Outcome("crash", detail=signal.Signals(-done.returncode).name)
        return _outcome(done.stdout, done.returncode)


class RemoteRunner:
    """Sends kernels to a board where `serve` runs.

    Args:
        op: what is computed.
        target: machine by name.
        address: host and port, such as ``"192.168.1.20:8766"``.
        token: shared secret of the board.
        repeats, budget_s, timeout_s: as of `LocalRunner`.

    Raises:
        ConfigError: an address without port.
        TargetUnavailable: there is no compiler for the board.
    """

    def __init__(
        self, op: Operator, target: str, address: str, token: str, repeats: int = 30, budget_s: float = 1.0,
        timeout_s: float = 60.0,
    ) -> None:  # fmt: skip
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not token or any(c.isspace() for c in token):
            raise ConfigError(f"a board is written HOST:PORT with a token without spaces, not {address!r}")
        self.op, self.machine, self._at, self._token = op, machine(target), (host, int(port)), token
        self._words, self._timeout_s = [str(repeats), str(budget_s)], int(timeout_s)
        self.target = _fingerprint(self.machine, address)

    def run(self, configs: Sequence[Config]) -> dict[Config, Outcome]:
        """Outcome of every configuration; a board that is gone is asked once more, then it is status ``device``."""
        return {config: self._one(config) for config in configs}

    def _one(self, config: Config) -> Outcome:
        text, blocks = self.op.program(config, self.machine)
        try:
            program = build_program(text, self.machine).read_bytes()
        except TargetUnavailable:
            raise
        except TargetError as e:
            return Outcome("invalid_compile", detail=str(e)[:200])
        words = " ".join([self._token, str(len(program)), str(self._timeout_s), *self._words, *blocks])
        error = ""
        for _ in range(2):
            try:
                return _outcome(self._ask(f"{words}\n".encode() + program), 0)
            except OSError as e:
                error = str(e)
        return Outcome("device", detail=f"{self._at[0]}:{self._at[1]} does not answer: {error}"[:200])

    def _ask(self, request: bytes) -> str:
        answer = b""
        with socket.create_connection(self._at, timeout=10) as connection:
            connection.settimeout(self._timeout_s + 30)
            connection.sendall(request)
            while len(answer) < _MOST_ANSWER and not answer.endswith(b"\n"):
                part = connection.recv(_MOST_ANSWER - len(answer))
                if not part:
                    break
                answer += part
        if not answer:
            raise OSError("the connection was closed without an answer")
        return answer.decode(errors="replace")


def serve(token_file: str | Path, address: str = "127.0.0.1", port: int = 0, target: str = "host") -> list[str]:
    """The command that serves a machine: a static program that needs no Python, only the file of its token.

    Args:
        token_file: one line, at least 16 characters.
        address: to listen on; the loopback address unless told otherwise.
        port: 0 for any free one, which the program prints.
        target: machine the program is built for.

    Raises:
        TargetUnavailable: there is no compiler for that machine.
    """
    program = build_program(source("op_server.c"), machine(target))
    return [str(program), address, str(port), str(token_file)]


def _fingerprint(m: Machine, where: str) -> str:
    tools = toolchain()
    compiler = "zig" if m.flags else tools.version if tools is not None else "none"
    return f"{m.name} {where if where != 'host' else host_id()} {compiler}"


def _outcome(line: str, code: int) -> Outcome:
    """What a program said of itself."""
    try:
        body: Any = json.loads(line)
        status = str(body["status"])
        if status == "ok":
            least, median = float(body["min"]), float(body["median"])
            return Outcome("ok", max(least, 1e-9), median, (median - least) / max(least, 1e-9))
        if status == "wrong_result":
            return Outcome(status, detail=f"largest error {body['error']} at output {body['at']}")
        if status in ("timeout", "crash", "device"):
            return Outcome(status, detail=str(body.get("detail", "")))
    except (ValueError, KeyError, TypeError):
        pass
    return Outcome("crash", detail=f"exit status {code}, no result")
