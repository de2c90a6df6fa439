"""Single files: written whole or not at all, read within limits."""

import contextlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from netfit.env import jsonable
from netfit.errors import ArtifactError

TEMPORARY = ".netfit-tmp"
MAX_JSON_BYTES = 64 << 20
MAX_JSON_VALUES = 2_000_000  # "[[],[],...]" takes twenty times its size as Python objects
MAX_JSON_DEPTH = 64


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that a reader, or a power cut, meets the old content or the new one.

    Args:
        path: missing folders are made.
        data: the whole new content.

    Raises:
        ArtifactError: the disk is full, the place cannot be written; an old file is still there, unchanged.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as e:
        raise cannot_write(path, e) from e
    finally:
        discard(temporary)


def write_json(path: str | Path, obj: Any) -> None:
    """Write a value as indented JSON, atomically.

    Args:
        path: missing folders are made.
        obj: what JSON can hold, and what :func:`netfit.env.jsonable` adds. NaN and infinity are not JSON.

    Raises:
        ArtifactError: the value has no JSON form, or :func:`write_bytes` failed.
    """
    write_bytes(path, encode_json(path, obj))


def read_json(path: str | Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of bounded size, depth and number of values.

    Args:
        path: a regular file.
        max_bytes: a larger file is refused before it is read.

    Raises:
        ArtifactError: the file is missing, too large, too deep or not JSON.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise ArtifactError(f"{path} holds {size} bytes, the limit for this kind of file is {max_bytes}")
            data = file.read(size)  # read(max_bytes) would allocate them all
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror or e}") from e
    return decode_json(path, data)


def remove_temporaries(folder: str | Path) -> None:
    """Remove what writers that were killed left in a folder and below; nobody else may be writing there."""
    for leftover in list(Path(folder).rglob(f".*{TEMPORARY}")):
        discard(leftover)


def encode_json(path: str | Path, obj: Any) -> bytes:
    """UTF-8 bytes of a value; `path` is for the error only."""
    try:
        return (json.dumps(obj, indent=1, allow_nan=False, default=jsonable) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as e:
        raise ArtifactError(f"cannot write {path}: not JSON: {e}") from e


def decode_json(path: str | Path, data: bytes) -> Any:
    """The value in `data`; limits are checked before and after parsing, `path` is for the error only."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise ArtifactError(f"{path} holds more than {MAX_JSON_VALUES} values")
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except (
        ValueError,
        RecursionError,
    ) as e:  # wrong JSON, wrong UTF-8, endless integers
        raise ArtifactError(f"{path} is not JSON: {str(e) or type(e).__name__}") from e
    if _deeper_than(value, MAX_JSON_DEPTH):
        raise ArtifactError(f"{path} is nested deeper than {MAX_JSON_DEPTH} levels")
    return value


def temporary_beside(path: Path) -> Path:
    """A name in the same folder, thus on the same file system, that nobody else uses."""
    return path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}{TEMPORARY}")


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(path: Path) -> None:
    """Remove a temporary file or folder, if it is there; failing at that must not hide the first error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def cannot_write(path: str | Path, error: OSError) -> ArtifactError:
    """The one message of every failed write."""
    return ArtifactError(f"cannot write {path}: {error.strerror or error}")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
