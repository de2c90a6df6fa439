"""Where the files of a data set lie, and reading them without trusting them.

Places, in this order: the folder given, ``$NETFIT_DATA``, the user cache, Debian's data-set packages, then a
checksummed download into the cache where an official file can be fetched.
"""

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError, DataNotFound
from netfit.io import write_bytes

SYSTEM_PLACE = Path("/usr/share/datasets")  # Debian's dataset-* packages


@dataclass(frozen=True)
class Source:
    """One file of a data set.

    Args:
        file: path inside the data folder.
        size: bytes.
        licence: of the data.
        where: where else to get it, for people.
        url: where to download exactly this file, if anywhere.
        md5: checksum of the download.
    """

    file: str
    size: int
    licence: str
    where: str
    url: str | None = None
    md5: str | None = None


def cache_dir() -> Path:
    """The user's cache folder of netfit, such as ``~/.cache/netfit``."""
    import pooch

    return Path(pooch.os_cache("netfit"))


def places(root: str | Path | None) -> list[Path]:
    env = os.environ.get("NETFIT_DATA")
    given = [Path(p).expanduser() for p in (root, env) if p]
    return [*given, cache_dir(), SYSTEM_PLACE]


def find(name: str, sources: tuple[Source, ...], root: str | Path | None = None) -> Path:
    """Path of the first source that lies in one of the places, else the first that can be downloaded.

    Raises:
        DataNotFound: no source is on disk or downloadable.
    """
    for place in places(root):
        for source in sources:
            if (place / source.file).is_file():
                return place / source.file
    tried = "it has no fixed download address"
    for source in sources:
        if source.url:
            try:
                return _download(source)
            except ValueError:  # pooch's checksum error
                tried = f"{source.url} has another checksum than it should"
            except Exception as e:  # pooch lets requests', urllib3's and OS errors through; all mean "no file"
                tried = f"downloading {source.url} failed ({type(e).__name__})"
    first = sources[0]
    looked = ", ".join(str(place) for place in places(root))
    hint = "" if os.environ.get("NETFIT_DATA") else " ($NETFIT_DATA is not set)"
    raise DataNotFound(
        f"{name}: {first.file} ({first.size / 1e6:.1f} MB, {first.licence}) is not in {looked}{hint}, "
        f"and {tried}; get it from {first.where}"
    )


def _download(source: Source) -> Path:
    import pooch

    target = cache_dir() / source.file
    fetched = pooch.retrieve(
        source.url,
        known_hash=f"md5:{source.md5}",
        path=target.parent,
        fname=target.name,
        downloader=pooch.HTTPDownloader(timeout=20),
    )
    return Path(fetched)


class Npz:
    """Read-only view of an ``.npz`` file; nothing in it is unpickled, and damage is reported in one line.

    Raises:
        ArtifactError: the file is damaged, or an array is missing from it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as e:
            raise ArtifactError(f"{path} is damaged or not an .npz file ({e}); fetch it again") from e

    def __getitem__(self, key: str) -> NDArray[Any]:
        try:
            data = self._zip.read(f"{key}.npy")  # checks the CRC
            return np.load(BytesIO(data), allow_pickle=False)
        except KeyError as e:
            raise ArtifactError(f"{self.path} holds no array {key!r}; fetch it again") from e
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
            raise ArtifactError(f"{self.path} is damaged at {key!r} ({e}); fetch it again") from e

    def fingerprint(self, key: str) -> str:
        """Content hash of one array, without reading it."""
        try:
            return f"{self._zip.getinfo(f'{key}.npy').CRC:08x}"
        except KeyError as e:
            raise ArtifactError(f"{self.path} holds no array {key!r}; fetch it again") from e


def cached_array(key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Result of ``make``, kept in the user cache as a read-only memory map.

    Args:
        key: file name in the cache; must name the content of the input (a hash), not its place.
        make: the slow function; called again when the cached file is absent or damaged.
    """
    path = cache_dir() / "decoded" / f"{key}.npy"
    for _ in range(2):
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            buffer = BytesIO()
            array = make()
            np.save(buffer, array, allow_pickle=False)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, buffer.getvalue())
            except (OSError, ArtifactError):
                return array  # a full or read-only cache costs time, not the job
    return array
