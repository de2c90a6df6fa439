"""What machine and which versions a number was measured with.

Versions are read from the packages' metadata, so a fingerprint imports nothing heavy.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from ._version import __version__
from .errors import ConfigError

__all__ = ["caches", "digest", "fingerprint", "host_id", "jsonable", "quiet"]

_PACKAGES = ("torch", "numpy", "openvino", "onnx", "onnxruntime", "optuna", "torch-pruning")

# The instruction sets that change which kernels a runtime picks; the other hundred flags do not.
_FLAGS = frozenset((
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
))  # fmt: skip

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "KMP_AFFINITY", "KMP_BLOCKTIME", "TBB_NUM_THREADS",
)  # fmt: skip


def fingerprint() -> dict[str, Any]:
    """Versions, processor and settings that a measured or trained number depends on.

    Returns:
        A JSON-able dict with the keys ``netfit``, ``python``, ``packages`` (name to version or None),
        ``os``, ``host`` (:func:`host_id`), ``cpu``, ``cpu_flags``, ``cores``, ``governor``, ``threads`` (the
        thread variables that are set) and ``git`` (commit and dirty of a checkout, else None).

    >>> sorted(fingerprint()["packages"])[0]
    'numpy'
    """
    return {
        "netfit": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "host": host_id(),
        "cpu": _cpu()[0],
        "cpu_flags": list(_cpu()[1]),
        "cores": _usable_cores(),
        "governor": _governor(),
        "threads": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        "git": _git(),
    }


def host_id() -> str:
    """Twelve hexadecimal digits that are equal on machines with the same kind of processor.

    Made of the processor's model, its instruction sets, architecture and core count; it holds no host name,
    user or serial number, so results can be published with it.
    """
    model, flags = _cpu()
    return digest([model, flags, platform.machine(), os.cpu_count()])[:12]


@functools.cache
def _caches() -> tuple[tuple[str, int], ...]:
    sizes: dict[str, int] = {}
    for entry in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((entry / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            sizes[f"l{level}"] = int(size.rstrip("KM")) * {"K": 1 << 10, "M": 1 << 20}.get(size[-1:], 1)
    if not sizes:  # no sysfs: the C library may know
        for level, name in (("l1", "SC_LEVEL1_DCACHE_SIZE"), *((f"l{i}", f"SC_LEVEL{i}_CACHE_SIZE") for i in (2, 3))):
            if name in getattr(os, "sysconf_names", {}) and (size_bytes := os.sysconf(name)) > 0:
                sizes[level] = size_bytes
    return tuple(sorted((sizes or {"l1": 32 << 10, "l2": 512 << 10}).items()))


def caches() -> dict[str, int]:
    """Bytes of the data caches that one core of this machine sees, by level, smallest first.

    Where the system does not tell, those of a small core are assumed: 32 KiB and 512 KiB.

    >>> list(caches())[0]
    'l1'
    """
    return dict(_caches())


def digest(obj: Any) -> str:
    """SHA-256 of the canonical JSON of a value: equal values give equal digests in every process.

    Args:
        obj: anything JSON can hold, and what :func:`jsonable` adds.

    Raises:
        ConfigError: the value has no JSON form.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    try:
        text = json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False, default=jsonable)
    except (TypeError, ValueError, RecursionError) as e:
        raise ConfigError(f"cannot take the digest of a value that JSON cannot hold: {e}") from e
    return hashlib.sha256(text.encode()).hexdigest()


def jsonable(obj: Any) -> Any:
    """The ``default`` hook of every JSON netfit writes: arrays, NumPy scalars, paths, dataclasses and sets.

    Args:
        obj: a value that :mod:`json` does not know.

    Raises:
        TypeError: there is no JSON form, as :mod:`json` expects of a hook.

    >>> json.dumps({"at": Path("a") / "b", "bits": frozenset({8, 4})}, default=jsonable)
    '{"at": "a/b", "bits": [4, 8]}'
    """
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: getattr(obj, field.name) for field in dataclasses.fields(obj)}
    if isinstance(obj, PurePath):
        return obj.as_posix()
    if isinstance(obj, set | frozenset):
        return sorted(obj)
    if hasattr(obj, "tolist"):  # NumPy scalars, NumPy arrays and torch tensors, without importing either
        return obj.tolist()
    raise TypeError(f"a {type(obj).__name__} has no JSON form")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _cpu() -> tuple[str, tuple[str, ...]]:
    """Model name and the instruction sets that matter (x86 ``flags``, Arm ``Features``)."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip().lower(), value.strip())
    except OSError:
        pass  # not Linux: the platform module knows the name, nobody knows the flags
    model = fields.get("model name") or platform.processor() or platform.machine()
    words = (fields.get("flags") or fields.get("features") or "").split()
    return model, tuple(sorted(_FLAGS.intersection(words)))


def _usable_cores() -> int:
    """Cores this process may use: a container or ``taskset`` may grant fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _governor() -> str | None:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None  # virtual machines and other systems do not show one


@functools.cache
def _git() -> dict[str, Any] | None:
    """Commit of netfit's own checkout; an environment inside somebody else's repository does not count."""
    package = Path(__file__).resolve().parent
    head = _git_output(package, "rev-parse", "--show-toplevel", "HEAD")
    if head is None:
        return None
    top, _, commit = head.partition("\n")
    if Path(top) / "src" / "netfit" != package:
        return None
    changes = _git_output(package, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit.strip(), "dirty": bool(changes)}


def _git_output(where: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(where), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no repository, or no commit yet
    return done.stdout


@contextlib.contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Silence a library that logs and warns of its own internals; nothing there is the user's to mend.

    Args:
        logger: such as ``"torch.onnx"``.
    """
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        found.setLevel(level)
