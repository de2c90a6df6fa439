"""Which compilers there are."""

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
from typing import Literal

from netfit.errors import ConfigError

# No contraction into fused multiply-adds: a kernel must agree with its torch reference to the last bit. A
# kernel that wants them passes -ffp-contract=fast, later flags win.
_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC")
Language = Literal["c", "c++"]
_STANDARDS = {"c": "-std=gnu11", "c++": "-std=gnu++17"}
_VARIABLES = {"c": "NETFIT_CC", "c++": "NETFIT_CXX"}


@dataclass(frozen=True)
class Toolchain:
    """A compiler: the command that runs it, what it says of itself, and the flags of every build."""

    cc: tuple[str, ...]
    version: str
    flags: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Everything outside the source that decides what a build contains, the processor included."""
        return "\n".join((*self.cc, self.version, *self.flags, _cpu()))


def toolchain(language: Language = "c") -> Toolchain | None:
    """The first compiler that answers: $NETFIT_CC, cc, gcc, clang, then the packaged zig.

    Args:
        language: for ``"c++"`` $NETFIT_CXX, c++, g++ and clang++. Not zig: its C++ library is not the one that the
            wheels of runtimes are built with.

    Returns:
        None when there is no compiler, or the variable is "none".

    Raises:
        ConfigError: the variable names something that does not answer to --version.
    """
    return _find(language, os.environ.get(_VARIABLES[language], "").strip())


@functools.cache
def _find(language: Language, wanted: str) -> Toolchain | None:
    if wanted == "none":
        return None
    if wanted:
        found = _probe(tuple(shlex.split(wanted)), language)
        if found is None:
            variable, word = _VARIABLES[language], language.upper()
            raise ConfigError(f"{variable}={wanted!r} does not answer to --version: name a {word} compiler, or 'none'")
        return found
    names = ("cc", "gcc", "clang") if language == "c" else ("c++", "g++", "clang++")
    commands: list[tuple[str, ...]] = [(name,) for name in names]
    if language == "c" and importlib.util.find_spec("ziglang"):
        commands.append((sys.executable, "-m", "ziglang", "cc"))
    return next((found for command in commands if (found := _probe(command, language))), None)


def _probe(command: tuple[str, ...], language: Language) -> Toolchain | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    command = (program, *command[1:])
    try:
        answer = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return Toolchain(command, answer.stdout.partition("\n")[0], (*_FLAGS, _STANDARDS[language]))


@functools.cache
def _cpu() -> str:
    """All instruction sets: a library built with -march=native must not run on a machine that lacks one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return "\n".join([platform.machine(), *kept])
