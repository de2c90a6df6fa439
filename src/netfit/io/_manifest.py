"""``netfit.json``: what it must hold, and how a member it lists is found and checked."""

import hashlib
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netfit.env import digest
from netfit.errors import ArtifactError, ArtifactVersionError, ConfigError

from ._atomic import read_json

FORMAT = 1
MANIFEST = "netfit.json"
TENSORS = "model.safetensors"
MAX_MANIFEST_BYTES = 8 << 20
MAX_MEMBERS = 256

# One flat file name: no separator, drive, leading dot or "..", so a member never leaves its folder.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """Size and hash that a member must have."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A checked ``netfit.json``."""

    meta: dict[str, Any]
    members: dict[str, Member]


def check_name(path: Path, name: object) -> str:
    """The name of a member other than the tensors, or an error."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ArtifactError(f"{path}: {name!r} is no member name: letters, digits, '.', '_' and '-' only")
    if name.casefold() in (MANIFEST, TENSORS):
        raise ArtifactError(f"{path}: the member name {name!r} is netfit's own")
    return name


def read_manifest(home: Path) -> Manifest:
    """Read and check ``netfit.json``; the members themselves are not touched."""
    place = _regular_file(home, MANIFEST)
    body = read_json(place, max_bytes=MAX_MANIFEST_BYTES)
    if not isinstance(body, dict):
        raise ArtifactError(f"{place} holds no object")
    _check_version(place, body.get("format"))
    if body.keys() != {"format", "meta", "members", "sha256"}:
        raise ArtifactError(f"{place} must hold format, meta, members and sha256, not {sorted(body)[:8]}")
    own = body.pop("sha256")
    try:
        found = digest(body)
    except ConfigError as e:  # a number that overflows to infinity parses, but has no canonical form
        raise ArtifactError(f"{place} is damaged: {e}") from e
    if own != found:
        raise ArtifactError(f"{place} is damaged: its content does not match its own sha256")
    if not isinstance(body["meta"], dict) or not isinstance(body["members"], dict):
        raise ArtifactError(f"{place}: meta and members must be objects")
    return Manifest(body["meta"], _members(home, body["members"]))


def read_member(home: Path, name: str, entry: Member) -> bytes:
    """The content of a member, after checking its size and hash."""
    place = check_size(home, name, entry)
    try:
        with place.open("rb") as file:
            data = file.read(entry.size)  # bounded, should the file grow meanwhile
    except OSError as e:
        raise ArtifactError(f"cannot read {place}: {e.strerror or e}") from e
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise damaged(place)
    return data


def check_size(home: Path, name: str, entry: Member) -> Path:
    """Where a member lies, after checking that it is a plain file of the listed size."""
    place = _regular_file(home, name)
    size = place.stat().st_size
    if size != entry.size:
        raise ArtifactError(f"{place} holds {size} bytes where {MANIFEST} lists {entry.size}")
    return place


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of any size, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(place: Path) -> ArtifactError:
    """The one message of every hash that differs."""
    return ArtifactError(f"{place} is damaged: its content does not match the sha256 in {MANIFEST}")


def _check_version(place: Path, version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ArtifactError(f"{place}: format must be a version number, not {str(version)[:40]!r}")
    if version > FORMAT:
        raise ArtifactVersionError(
            f"{place} has format {version:.3g}, this netfit reads up to {FORMAT}: install a newer netfit"
        )


def _members(home: Path, listed: dict[str, Any]) -> dict[str, Member]:
    if TENSORS not in listed or len(listed) > MAX_MEMBERS:
        raise ArtifactError(f"{home / MANIFEST} must list {TENSORS} and at most {MAX_MEMBERS} members")
    for name in listed.keys() - {TENSORS}:
        check_name(home, name)
    return {name: _member(home, name, entry) for name, entry in listed.items()}


def _member(home: Path, name: str, entry: object) -> Member:
    match entry:
        case {"bytes": int(size), "sha256": str(sha256)} if size >= 0 and _SHA256.fullmatch(sha256):
            return Member(size, sha256)
    raise ArtifactError(f"{home / MANIFEST}: member {name!r} needs its size in bytes and its sha256")


def _regular_file(home: Path, name: str) -> Path:
    """Links are refused: an artifact from elsewhere must not make netfit read this machine's other files."""
    place = home / name
    try:
        mode = place.lstat().st_mode
    except (OSError, ValueError) as e:
        raise ArtifactError(f"{place} is missing") from e
    if not stat.S_ISREG(mode):
        raise ArtifactError(f"{place} is not a plain file; links, folders and devices are not followed")
    return place
