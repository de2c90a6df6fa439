"""Image data sets whose images are complete JPEG files: decoded once, then mapped from the user cache."""

import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError

from ._dataset import Dataset
from ._files import Npz, Source, cached_array, find

CIFAR10 = (
    Source(
        "cifar10_jpeg.npz",
        56_033_649,
        "no formal licence; cite Krizhevsky 2009",
        "the author's page (cifar-10-binary.tar.gz)",
    ),
    Source(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "no formal licence; cite Krizhevsky 2009",
        "the author's page",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

TINY_IMAGENET20 = (
    Source(
        "tiny_imagenet20.npz",
        21_850_008,
        "ImageNet terms: non-commercial research and education only",
        "tiny-imagenet-200.zip of the Stanford CS231n course",
    ),
)


def decode_jpegs(path: Path, data: NDArray[np.uint8], offset: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
    """Decode consecutive JPEG files of one size into (n, 3, side, side); grey images become RGB."""
    from PIL import Image

    images = np.empty((len(offset) - 1, 3, side, side), np.uint8)
    for i in range(len(images)):
        try:
            with Image.open(BytesIO(data[offset[i] : offset[i + 1]].tobytes()), formats=["JPEG"]) as image:
                images[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except (OSError, ValueError, SyntaxError) as e:
            raise ArtifactError(f"{path}: image {i} is damaged ({e}); fetch the file again") from e
    return images


def _jpeg_arrays(path: Path, name: str, prefix: str, side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels (decoded once, then a memory map) and labels of one split of a JPEG-stored set."""
    npz = Npz(path)

    def decode() -> NDArray[Any]:
        return decode_jpegs(path, npz[f"{prefix}_jpeg"], npz[f"{prefix}_offset"], side)

    key = f"{name}-{prefix}-{npz.fingerprint(f'{prefix}_jpeg')}"
    return cached_array(key, decode), npz[f"{prefix}_label"]


def _cifar10_records(path: Path, split: str) -> NDArray[np.uint8]:
    """Rows of the author's binary files: one label byte, then 3072 bytes in CHW order."""
    parts = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    try:
        with tarfile.open(path) as tar:
            files = [tar.extractfile(f"cifar-10-batches-bin/{p}.bin") for p in parts]
            data = b"".join(f.read() for f in files if f is not None)
        return np.frombuffer(data, np.uint8).reshape(-1, 3073)
    except (OSError, KeyError, ValueError, EOFError, tarfile.TarError) as e:
        raise ArtifactError(f"{path} is damaged or not CIFAR-10's binary archive ({e}); fetch it again") from e


def cifar10(split: str, root: str | Path | None) -> Dataset:
    """CIFAR-10, 32x32 RGB: "Learning multiple layers of features from tiny images", 2009."""
    path = find("cifar10", CIFAR10, root)
    if path.suffix == ".npz":
        x, label = _jpeg_arrays(path, "cifar10", split, side=32)
        source = "JPEG-recompressed copy (median PSNR 30 dB): do not compare accuracies with published ones"
    else:
        records = cached_array(f"cifar10-{split}-binary", lambda: _cifar10_records(path, split))
        x, label = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
        source = "the author's binary archive"
    return Dataset(
        name="cifar10",
        split=split,
        x=x,
        y=label.astype(np.int64),
        classes=CIFAR10_CLASSES,
        mean=(0.491, 0.482, 0.447),
        std=(0.245, 0.243, 0.261),
        licence=CIFAR10[0].licence,
        source=source,
        index=np.arange(len(x)),
    )


def tiny_imagenet20(split: str, root: str | Path | None) -> Dataset:
    """20 of the 200 classes of Tiny ImageNet, 64x64 RGB; the official validation images are the test split."""
    path = find("tiny-imagenet20", TINY_IMAGENET20, root)
    x, label = _jpeg_arrays(path, "tiny-imagenet20", {"train": "train", "test": "val"}[split], side=64)
    return Dataset(
        name="tiny-imagenet20",
        split=split,
        x=x,
        y=label.astype(np.int64),
        classes=tuple(str(n) for n in Npz(path)["names"]),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        licence=TINY_IMAGENET20[0].licence,
        source="20 classes of Tiny ImageNet (Stanford CS231n); test = the validation images",
        index=np.arange(len(x)),
    )
