"""Building native code: what is found, cached, refused and reported."""

import ctypes
import importlib.util
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netfit.errors import ConfigError, TargetError, TargetUnavailable
from netfit.kernels import _toolchain, compile_c, toolchain

needs_cc = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")
TWICE = "int twice(int x) { return 2 * x; }"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "netfit" / "kernels"


@needs_cc
def test_builds_once_and_keeps_the_library_private(cache: Path) -> None:
    library = compile_c(TWICE, "twice")
    assert isinstance(library, ctypes.CDLL)
    assert library.twice(21) == 42
    assert compile_c(TWICE, "twice") is library
    (made,) = cache.iterdir()
    assert made.name.startswith("twice-")
    assert cache.stat().st_mode & 0o777 == 0o700
    assert made.stat().st_mode & 0o077 == 0


@needs_cc
def test_flags_and_source_decide_the_file(cache: Path) -> None:
    source = "int size(void) { return SIZE; }"
    assert compile_c(source, "size", ["-DSIZE=3"]).size() == 3
    assert compile_c(source, "size", ["-DSIZE=4"]).size() == 4
    assert len(list(cache.iterdir())) == 2


@needs_cc
def test_compile_error_is_the_compilers_first_error(cache: Path) -> None:
    with pytest.raises(TargetError, match=r"cannot build broken: broken\.c:1:.*error.*undefined_name"):
        compile_c("int f(void) { return undefined_name; }", "broken")
    assert list(cache.iterdir()) == []


@needs_cc
def test_a_library_others_could_have_written_is_not_loaded(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(TargetError, match="writable by others"):
        compile_c(TWICE, "open_directory")


@needs_cc
def test_a_linked_cache_directory_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.parent.mkdir()
    cache.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetError, match="is a link"):
        compile_c(TWICE, "linked")


def build_in_a_child(count: int) -> list[int | None]:
    """Exit codes of processes that build the same library at once, each with an empty memory of its own."""

    def child() -> None:
        sys.exit(compile_c("int seven(void) { return 7; }", "seven").seven() - 7)

    children = [multiprocessing.get_context("fork").Process(target=child) for _ in range(count)]
    for process in children:
        process.start()
    for process in children:
        process.join(120)
    return [process.exitcode for process in children]


@needs_cc
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_damaged_library_is_an_error_with_a_remedy(cache: Path) -> None:
    assert build_in_a_child(1) == [0]
    (made,) = cache.iterdir()
    made.write_bytes(b"not a library")
    with pytest.raises(TargetError, match="delete it"):
        compile_c("int seven(void) { return 7; }", "seven")


@needs_cc
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_building_at_once_agree(cache: Path) -> None:
    assert build_in_a_child(3) == [0, 0, 0]
    assert len(list(cache.iterdir())) == 1


def test_no_compiler_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NETFIT_CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    # What was found is remembered for the life of a process: forget it before and after.
    _toolchain._find.cache_clear()
    try:
        assert toolchain() is None
        with pytest.raises(TargetUnavailable, match=r"netfit\[cc\]"):
            compile_c(TWICE, "twice")
    finally:
        _toolchain._find.cache_clear()


def test_none_switches_native_code_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETFIT_CC", "none")
    assert toolchain() is None
    with pytest.raises(TargetUnavailable, match="no C compiler"):
        compile_c(TWICE, "twice")


def test_a_name_cannot_leave_the_cache() -> None:
    with pytest.raises(ConfigError, match="file name"):
        compile_c(TWICE, "../twice")


def test_an_unknown_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETFIT_CC", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler"):
        toolchain()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="the extra cc is not installed")
def test_the_packaged_zig_is_the_last_resort(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "from netfit.kernels import *; import torch; assert 'ziglang' in toolchain().cc, toolchain(); "
        "import warnings; warnings.simplefilter('error'); x = torch.randn(1000); "
        "a = pack_groups(x, 4, 256, 7); s = pack_signs(torch.randn(9, 130)); g = binary_gemm(s, s, 130); "
        "import os; os.environ['NETFIT_CC'] = 'none'; "
        "assert all(map(torch.equal, a, pack_groups(x, 4, 256, 7))); "
        "assert torch.equal(g, binary_gemm(s, s, 130))"
    )
    environment = {**os.environ, "PATH": str(empty)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
