"""Finding files, and reading damaged ones."""

import gzip
import subprocess
import sys
import tarfile
from io import BytesIO

import numpy as np
import pytest

from netfit import data
from netfit.data import _files, _images, _jpeg
from netfit.errors import ArtifactError, ConfigError, DataNotFound


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data anywhere, no network, and a user cache of its own."""
    monkeypatch.delenv("NETFIT_DATA", raising=False)
    monkeypatch.setattr(_files, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(_files, "SYSTEM_PLACE", tmp_path / "system")

    def no_network(source):
        raise ConnectionError

    monkeypatch.setattr(_files, "_download", no_network)
    return tmp_path


def write_npz(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{k: np.asarray(v) for k, v in arrays.items()})
    return path


def tiny_mnist(folder, value):
    image = np.full((2, 28, 28), value, np.uint8)
    return write_npz(folder / "mnist.npz", test_image=image, test_label=np.array([1, 2], np.uint8))


def test_missing_data_names_file_size_licence_and_origin(nowhere):
    with pytest.raises(DataNotFound) as e:
        data.load("fsdd")
    text = str(e.value)
    for part in ("fsdd.npz", "15.4 MB", "CC BY-SA 4.0", "github.com/Jakobovski", "$NETFIT_DATA is not set"):
        assert part in text
    assert "\n" not in text


def test_failed_download_is_part_of_the_message(nowhere):
    with pytest.raises(DataNotFound, match=r"downloading https://.* failed \(ConnectionError\)"):
        data.load("cifar10")


def test_root_comes_before_the_environment_before_the_cache(nowhere, monkeypatch):
    tiny_mnist(nowhere / "cache", 1)
    assert data.load("mnist", "test").x.max() == 1
    tiny_mnist(nowhere / "env", 2)
    monkeypatch.setenv("NETFIT_DATA", str(nowhere / "env"))
    assert data.load("mnist", "test").x.max() == 2
    tiny_mnist(nowhere / "root", 3)
    assert data.load("mnist", "test", root=nowhere / "root").x.max() == 3


def test_truncated_and_flipped_files_are_one_line_errors(nowhere):
    path = tiny_mnist(nowhere, 7)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ArtifactError, match=r"mnist\.npz is damaged"):
        data.load("mnist", "test", root=nowhere)
    flipped = bytearray(good)
    flipped[200] ^= 255  # inside the pixels: only the checksum can tell
    path.write_bytes(flipped)
    with pytest.raises(ArtifactError, match="damaged at 'test_image'"):
        data.load("mnist", "test", root=nowhere)


def test_missing_array_is_named(nowhere):
    write_npz(nowhere / "mnist.npz", other=[1])
    with pytest.raises(ArtifactError, match="no array 'test_image'"):
        data.load("mnist", "test", root=nowhere)


def test_pickled_arrays_are_refused(nowhere):
    image = np.array([{"a": 1}], dtype=object)
    np.savez(nowhere / "mnist.npz", test_image=image, test_label=np.zeros(1, np.uint8))
    with pytest.raises(ArtifactError, match="damaged at 'test_image'"):
        data.load("mnist", "test", root=nowhere)


def idx(shape, body):
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + body


def test_idx_files_are_read_and_checked(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx((2, 3), bytes(range(6)))))
    assert _images.read_idx(path, (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ArtifactError, match="not an IDX file of 3x3 bytes"):
        _images.read_idx(path, (3, 3))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="damaged"):
        _images.read_idx(path, (2, 3))


def test_idx_reader_stops_at_the_announced_size(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx((2, 3), bytes(10_000_000))))
    with pytest.raises(ArtifactError, match="not an IDX file"):
        _images.read_idx(path, (2, 3))


def test_binary_cifar_archive(nowhere):
    record = bytes([3]) + bytes([10] * 1024 + [20] * 1024 + [30] * 1024)
    with tarfile.open(nowhere / "cifar-10-binary.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        info.size = 2 * len(record)
        tar.addfile(info, BytesIO(2 * record))
    test = data.load("cifar10", "test", root=nowhere)
    assert test.x.shape == (2, 3, 32, 32) and test.y.tolist() == [3, 3]
    assert test.x[0].mean((1, 2)).tolist() == [10, 20, 30]
    with pytest.raises(ArtifactError, match="not CIFAR-10's binary archive"):
        data.load("cifar10", "train", root=nowhere)


def jpeg_store(images):
    from PIL import Image

    files = []
    for image in images:
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    flat = np.frombuffer(b"".join(files), np.uint8)
    return flat, np.cumsum([0, *map(len, files)]).astype(np.int64)


def test_jpegs_are_decoded_once_and_grey_becomes_rgb(nowhere, monkeypatch):
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[..., 0] = 200
    flat, offset = jpeg_store([colour, np.full((32, 32), 90, np.uint8)])
    write_npz(nowhere / "cifar10_jpeg.npz", test_jpeg=flat, test_offset=offset, test_label=np.array([1, 9], np.uint8))
    first = data.load("cifar10", "test", root=nowhere)
    assert first.x.shape == (2, 3, 32, 32)
    assert abs(first.x[0, 0].mean() - 200) < 4 and first.x[0, 1].mean() < 4
    assert (abs(first.x[1].astype(int) - 90) < 4).all()
    monkeypatch.setattr(_jpeg, "decode_jpegs", None)  # a second decode would fail
    second = data.load("cifar10", "test", root=nowhere)
    assert isinstance(second.x, np.memmap) and (second.x == first.x).all()


def test_damaged_jpeg_is_named(nowhere):
    flat, offset = jpeg_store([np.zeros((32, 32, 3), np.uint8)])
    flat = np.zeros_like(flat)
    write_npz(nowhere / "cifar10_jpeg.npz", test_jpeg=flat, test_offset=offset, test_label=np.array([1], np.uint8))
    with pytest.raises(ArtifactError, match="image 0 is damaged"):
        data.load("cifar10", "test", root=nowhere)


def test_damaged_cache_is_made_again(nowhere):
    made = []

    def make():
        made.append(1)
        return np.arange(100)

    assert _files.cached_array("key", make)[99] == 99
    path = nowhere / "cache" / "decoded" / "key.npy"
    path.write_bytes(path.read_bytes()[:200])
    assert _files.cached_array("key", make)[99] == 99
    assert _files.cached_array("key", make)[99] == 99
    assert len(made) == 2


def test_unwritable_cache_costs_time_only(nowhere):
    (nowhere / "cache").write_text("a file where the folder should be")
    assert _files.cached_array("key", lambda: np.arange(3)).tolist() == [0, 1, 2]


def test_unknown_names_and_splits():
    with pytest.raises(ConfigError, match="did you mean 'mnist'"):
        data.load("minst")
    with pytest.raises(ConfigError, match="unknown split 'val' of mnist; known: test, train"):
        data.load("mnist", "val")
    with pytest.raises(ConfigError, match="'mnist' has no recordings"):
        data.recordings("mnist")


def test_data_room_needs_no_torch():
    code = "import sys, netfit.data as d; d.load('digits', 'test'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
