"""C text to a program that runs alone: for this machine by its compiler, for others by the packaged zig."""

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from netfit.errors import TargetError, TargetUnavailable
from netfit.kernels import toolchain
from netfit.kernels._compile import _cache_dir, _first_error, _require_private

from ._machine import Machine

__all__ = ["build_program", "emulator"]

_TIMEOUT_S = 600  # zig builds its C library on its first run
_FLAGS = ("-std=gnu11", "-O2", "-ffp-contract=fast", "-fno-math-errno")
_EMULATORS = {"aarch64": ("qemu-aarch64", "qemu-aarch64-static"), "arm": ("qemu-arm", "qemu-arm-static")}


def build_program(source: str, machine: Machine) -> Path:
    """Build a program; the result is cached under the hash of its text, compiler and flags.

    Args:
        source: C text with a ``main``.
        machine: what it shall run on.

    Raises:
        TargetUnavailable: there is no compiler for that machine.
        TargetError: it does not compile.
    """
    command, identity = _compiler(machine)
    digest = hashlib.sha256("\0".join([source, identity]).encode()).hexdigest()[:32]
    path = _cache_dir() / f"program-{digest}"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as work:
            text, made = Path(work) / "op.c", Path(work) / "op"
            text.write_text(source)
            try:
                done = subprocess.run(
                    [*command, str(text), "-o", str(made), "-lm"],
                    capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as e:
                raise TargetError(f"the compiler for {machine.name} did not finish within {_TIMEOUT_S} s") from e
            if done.returncode:
                raise TargetError(f"cannot build for {machine.name}: {_first_error(done.stderr, work)}")
            made.chmod(0o700)
            made.replace(path)
    _require_private(path)
    return path


@functools.cache
def _compiler(machine: Machine) -> tuple[list[str], str]:
    if not machine.flags:
        tools = toolchain()
        if tools is None:
            raise TargetUnavailable("no C compiler found: install gcc, or pip install 'netfit[cc]' for a packaged one")
        return [*tools.cc, *_FLAGS, "-march=native"], tools.identity
    if importlib.util.find_spec("ziglang") is None:
        raise TargetUnavailable(f"cross compiling for {machine.name} needs zig: pip install 'netfit[cc]'")
    command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, *machine.flags, "-static"]
    return command, " ".join(command)


def emulator(machine: Machine) -> tuple[str, ...] | None:
    """What runs a machine's programs here: nothing for the host, qemu for others; None when there is no qemu."""
    if not machine.flags:
        return ()
    family = "aarch64" if "aarch64" in machine.flags[1] else "arm"
    found = next((shutil.which(name) for name in _EMULATORS[family] if shutil.which(name)), None)
    return None if found is None else (found,)


def environment() -> dict[str, str]:
    """One thread, whatever the parent has."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
