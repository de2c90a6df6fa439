"""Which C compiler there is."""

import functools
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from netfit.errors import ConfigError

# No contraction into fused multiply-adds: a kernel must agree with its torch reference to the last bit. A
# kernel that wants them passes -ffp-contract=fast, later flags win.
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-ffp-contract=off", "-shared", "-fPIC")


@dataclass(frozen=True)
class Toolchain:
    """A C compiler: the command that runs it, what it says of itself, and the flags of every build."""

    cc: tuple[str, ...]
    version: str
    flags: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Everything outside the source that decides what a build contains, the processor included."""
        return "\n".join((*self.cc, self.version, *self.flags, _cpu()))


def toolchain() -> Toolchain | None:
    """The first C compiler that answers: $NETFIT_CC, cc, gcc, clang, then the packaged zig.

    Returns:
        None when there is no compiler, or NETFIT_CC is "none".

    Raises:
        ConfigError: NETFIT_CC names something that does not answer to --version.
    """
    return _find(os.environ.get("NETFIT_CC", "").strip())


@functools.cache
def _find(wanted: str) -> Toolchain | None:
    if wanted == "none":
        return None
    if wanted:
        found = _probe(tuple(shlex.split(wanted)))
        if found is None:
            raise ConfigError(f"NETFIT_CC={wanted!r} does not answer to --version: name a C compiler, or 'none'")
        return found
    commands: list[tuple[str, ...]] = [("cc",), ("gcc",), ("clang",)]
    if importlib.util.find_spec("ziglang"):
        commands.append((sys.executable, "-m", "ziglang", "cc"))
    return next((found for command in commands if (found := _probe(command))), None)


def _probe(command: tuple[str, ...]) -> Toolchain | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    command = (program, *command[1:])
    try:
        answer = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return Toolchain(command, answer.stdout.partition("\n")[0], _FLAGS)


@functools.cache
def _cpu() -> str:
    """All instruction sets: a library built with -march=native must not run on a machine that lacks one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return "\n".join([platform.machine(), *kept])
