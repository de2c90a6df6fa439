"""The one artifact: a folder with ``netfit.json``, ``model.safetensors`` and named files.

``netfit.json`` lists the size and SHA-256 of every other member and its own, so nothing damaged is ever used.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netfit.env import digest
from netfit.errors import ArtifactError

from ._atomic import cannot_write, discard, encode_json, sync_folder, temporary_beside
from ._manifest import FORMAT, MANIFEST, TENSORS, check_name, read_manifest, read_member, sha256_of
from ._tensors import load_tensors, save_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Artifact:
    """What :func:`read_artifact` found: meta data, tensors on the CPU (or arrays), and the other files' bytes."""

    path: Path
    meta: dict[str, Any]
    tensors: dict[str, Any]
    files: dict[str, bytes]


def write_artifact(
    path: str | Path,
    meta: Mapping[str, Any],
    tensors: "Mapping[str, Tensor] | Mapping[str, NDArray[Any]]",
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write meta data, tensors and files as one artifact; an older artifact there is replaced as a whole.

    Args:
        path: the artifact's folder. It may be absent, empty, or an artifact; anything else is left alone.
        meta: JSON-able.
        tensors: name to dense tensor of any device, or name to numpy array; those that share memory are stored once
            each.
        files: name to content of further members, such as ``model.onnx``; no folders in the names.

    Raises:
        ArtifactError: a name, type or value cannot be stored, the folder holds something else, or the disk is
            full or read-only; an older artifact is then still there, unchanged.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_artifact(Path(folder) / "net", {"bits": 8}, {"weight": torch.ones(2)}, {"note.txt": b"hi"})
    ...     back = read_artifact(Path(folder) / "net")
    >>> back.meta, back.tensors["weight"].tolist(), back.files
    ({'bits': 8}, [1.0, 1.0], {'note.txt': b'hi'})
    """
    path, files = Path(path), dict(files or {})
    for name in files:
        check_name(path, name)
    staging = temporary_beside(path)
    try:
        _restore(path)
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        save_tensors(path, staging / TENSORS, tensors)
        for name, data in files.items():
            _write_synced(staging / name, data)
        _write_synced(staging / MANIFEST, _manifest(path, meta, staging))
        sync_folder(staging)
        _swap(staging, path)
    except OSError as e:
        raise cannot_write(path, e) from e
    finally:
        discard(staging)


def read_artifact(path: str | Path, framework: Literal["pt", "np"] = "pt") -> Artifact:
    """Read an artifact after checking version, names, sizes, hashes, counts and types.

    Nothing is ever executed. Memory stays below twice the size of the files, beside the bounded JSON of
    ``netfit.json`` and of the tensors' header.

    Args:
        path: the artifact's folder.
        framework: ``"pt"`` gives torch tensors; ``"np"`` numpy arrays, without loading torch.

    Raises:
        ArtifactVersionError: a newer netfit wrote it.
        ArtifactError: it is missing, damaged, or breaks one of the limits.
    """
    path = Path(path)
    # A writer that was killed between its two renames left the old artifact under the other name.
    home = path if path.exists() else _retired(path)
    if not home.is_dir():
        raise ArtifactError(f"{path} is not an artifact: no folder of that name with a {MANIFEST}")
    manifest = read_manifest(home)
    tensors = load_tensors(home, manifest.members[TENSORS], framework)
    files = {name: read_member(home, name, entry) for name, entry in manifest.members.items() if name != TENSORS}
    return Artifact(path, manifest.meta, tensors, files)


def _manifest(path: Path, meta: Mapping[str, Any], staging: Path) -> bytes:
    members = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(staging.iterdir())
    }
    # Through JSON once, so that the digest is taken of what a reader will see (lists, not tuples).
    body = {"format": FORMAT, "meta": dict(meta), "members": members}
    encode_json(path, body)
    return encode_json(path, body | {"sha256": digest(body)})


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _check_replaceable(path: Path) -> None:
    """Replacing removes the old folder: refuse when it holds anything an artifact does not list."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    known = {MANIFEST, *read_manifest(path).members} if path.is_dir() else set()
    foreign = sorted({file.name for file in path.iterdir()} - known) if path.is_dir() else [path.name]
    if foreign:
        raise ArtifactError(f"cannot write {path}: {foreign[0]!r} is there and not part of an artifact")


def _swap(staging: Path, path: Path) -> None:
    """Put the new folder in place. A full folder cannot be replaced, so the old one steps aside."""
    retired = _retired(path)
    if path.exists():
        discard(retired)
        path.rename(retired)
    try:
        staging.rename(path)
    except OSError:
        _restore(path)
        raise
    sync_folder(path.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _restore(path: Path) -> None:
    if not path.exists() and _retired(path).exists():
        _retired(path).rename(path)


def _retired(path: Path) -> Path:
    return path.with_name(f".{path.name}.netfit-old")
