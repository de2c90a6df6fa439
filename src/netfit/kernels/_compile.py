"""C and C++ source to loaded library, once per machine.

Libraries are cached in the user's cache directory under the hash of everything that decides their content.
Loading one is running code, so the directory and the file must belong to this user and be closed to others.
Two processes may build the same library at once: each builds in a directory of its own and moves the result
into place, the second one over an equal file.
"""

import ctypes
import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from netfit.errors import ConfigError, TargetError, TargetUnavailable
from netfit.kernels._toolchain import Language, Toolchain, toolchain

_TIMEOUT_S = 300  # the packaged zig builds its C library on its first run
_ENDINGS = {"c": ".c", "c++": ".cpp"}
_MISSING = {
    "c": "no C compiler was found: install gcc or clang, or pip install 'netfit[cc]' for a packaged one",
    "c++": "no C++ compiler was found: install g++ or clang++, or name one in NETFIT_CXX",
}
_loaded: dict[Path, ctypes.CDLL] = {}


def compile_c(source: str, name: str, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """Build C source into a shared library and load it; the result is cached on disk and in memory.

    Args:
        source: C11 text with GNU extensions.
        name: a word for file names and messages.
        flags: more compiler flags, after those of the toolchain.

    Raises:
        ConfigError: the name is not a plain word.
        TargetUnavailable: there is no C compiler.
        TargetError: the source does not compile, or the cache directory is not private.

    Example:
        >>> compile_c("int twice(int x) { return 2 * x; }", "twice").twice(21) if toolchain() else 42
        42
    """
    path = _library("c", source, name, flags)
    if path not in _loaded:
        try:
            _loaded[path] = ctypes.CDLL(str(path))
        except OSError as e:
            raise TargetError(f"{path} does not load ({e}): delete it, it will be built again") from e
    return _loaded[path]


def compile_cpp(source: str, name: str, flags: Sequence[str] = ()) -> Path:
    """Build C++ source into a shared library that a runtime loads itself; the result is cached on disk.

    Args:
        source: C++17 text with GNU extensions.
        name: a word for file names and messages.
        flags: more compiler flags; they count as content, so name the version of what they link to.

    Raises:
        ConfigError: the name is not a plain word.
        TargetUnavailable: there is no C++ compiler.
        TargetError: the source does not compile, or the cache directory is not private.
    """
    return _library("c++", source, name, flags)


def _library(language: Language, source: str, name: str, flags: Sequence[str]) -> Path:
    if not name.isidentifier():
        raise ConfigError(f"name={name!r} of a library becomes a file name: use letters, digits and _")
    tools = toolchain(language)
    if tools is None:
        raise TargetUnavailable(_MISSING[language])
    content = "\0".join((source, tools.identity, *flags))
    digest = hashlib.sha256(content.encode()).hexdigest()
    path = _cache_dir() / f"{name}-{digest[:32]}.so"
    if path not in _loaded:
        if not path.exists():
            _build(tools, source, f"{name}{_ENDINGS[language]}", flags, path)
        _require_private(path)
    return path


def _cache_dir() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = base / "netfit" / "kernels"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as e:
        raise TargetError(f"cannot create {directory} ({e.strerror}): set XDG_CACHE_HOME to a writable place") from e
    _require_private(directory)
    return directory


def _require_private(path: Path) -> None:
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
        raise TargetError(
            f"{path} is a link, belongs to someone else or is writable by others: delete it, compiled code is "
            "only loaded from a private place"
        )


def _build(tools: Toolchain, source: str, file: str, flags: Sequence[str], path: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as work:
            made = Path(work) / "out.so"
            text = Path(work) / file
            text.write_text(source)
            command = [*tools.cc, *tools.flags, *flags, str(text), "-o", str(made), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
            if done.returncode:
                raise TargetError(f"{tools.version} cannot build {Path(file).stem}: {_first_error(done.stderr, work)}")
            made.chmod(0o700)
            with made.open("rb") as built:
                os.fsync(built.fileno())
            made.replace(path)
    except subprocess.TimeoutExpired as e:
        raise TargetError(f"{tools.version} did not build {Path(file).stem} within {_TIMEOUT_S} s") from e
    except OSError as e:
        raise TargetError(f"cannot write {path} ({e.strerror}): free space or set XDG_CACHE_HOME") from e


def _first_error(stderr: str, work: str) -> str:
    lines = [line.replace(work + os.sep, "") for line in stderr.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no message")
