"""Image data sets stored as plain arrays: MNIST and its relatives, scikit-learn's digits."""

import gzip
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError

from ._dataset import Dataset
from ._files import Npz, Source, find

DIGITS = tuple(str(d) for d in range(10))
MNIST_LICENCE = "CC BY-SA 3.0"
MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
MNIST = Source("mnist.npz", 11_490_551, MNIST_LICENCE, "any MNIST mirror or OpenML mnist_784")
AMBIGUOUS_MNIST = Source(
    "ambiguous_mnist.npz", 1_811_885, MNIST_LICENCE, "nowhere: it was generated from MNIST for netfit"
)
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def _idx_sources(folder: str, base: str, licence: str, where: str, *files: tuple[str, int, str]) -> dict[str, Source]:
    """The four IDX files (part, bytes, md5) that MNIST and its drop-in replacements consist of."""
    sources = {}
    for part, size, md5 in files:
        file = f"{part}-idx{3 if part.endswith('images') else 1}-ubyte.gz"
        sources[part] = Source(f"{folder}/{file}", size, licence, where, f"{base}/{file}", md5)
    return sources


MNIST_IDX = _idx_sources(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    MNIST_LICENCE,
    MNIST.where,
    ("train-images", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    ("train-labels", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
    ("t10k-images", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
    ("t10k-labels", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
)
FASHION_IDX = _idx_sources(
    "fashion-mnist",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "MIT",
    "the Debian package dataset-fashion-mnist",
    ("train-images", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    ("train-labels", 29_515, "25c81989df183df01b3e8a0aad5dffbe"),
    ("t10k-images", 4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
    ("t10k-labels", 5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
)


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bytes of a gzipped IDX file that must hold exactly this shape.

    Raises:
        ArtifactError: the file is damaged or holds something else.
    """
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    expected = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path) as file:
            data = file.read(expected + 1)  # never more than announced: a gzip bomb stops here
    except (OSError, EOFError, zlib.error) as e:
        raise ArtifactError(f"{path} is damaged ({e}); fetch it again") from e
    if len(data) != expected or not data.startswith(header):
        raise ArtifactError(f"{path} is not an IDX file of {'x'.join(map(str, shape))} bytes; fetch it again")
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)


def _idx_arrays(name: str, sources: dict[str, Source], split: str, root: str | Path | None) -> tuple[Any, Any]:
    part, n = {"train": ("train", 60000), "test": ("t10k", 10000)}[split]
    x = read_idx(find(name, (sources[f"{part}-images"],), root), (n, 28, 28))
    return x, read_idx(find(name, (sources[f"{part}-labels"],), root), (n,))


def _images(name: str, split: str, x: NDArray[Any], y: NDArray[Any], licence: str, source: str) -> Dataset:
    """Grey 28x28 digits with MNIST's statistics."""
    return Dataset(
        name=name,
        split=split,
        x=x[:, None],
        y=y.astype(np.int64),
        classes=DIGITS,
        mean=MNIST_MEAN,
        std=MNIST_STD,
        licence=licence,
        source=source,
        index=np.arange(len(x)),
    )


def mnist(split: str, root: str | Path | None) -> Dataset:
    """MNIST, 28x28 grey: "Gradient-based learning applied to document recognition", 1998."""
    part = {"train": "train", "test": "t10k"}[split]
    path = find("mnist", (MNIST, MNIST_IDX[f"{part}-images"]), root)
    if path.suffix == ".npz":
        npz = Npz(path)
        x, y = npz[f"{split}_image"], npz[f"{split}_label"]
    else:
        x, y = _idx_arrays("mnist", MNIST_IDX, split, root)
    return _images("mnist", split, x, y, MNIST_LICENCE, "MNIST (LeCun, Cortes, Burges)")


def fashion_mnist(split: str, root: str | Path | None) -> Dataset:
    """Fashion-MNIST, 28x28 grey: "Fashion-MNIST: a novel image dataset ...", 2017."""
    x, y = _idx_arrays("fashion-mnist", FASHION_IDX, split, root)
    plain = _images("fashion-mnist", split, x, y, "MIT", "Fashion-MNIST (Zalando)")
    return replace(plain, classes=FASHION_CLASSES, mean=(0.2860,), std=(0.3530,))


def ambiguous_mnist(split: str, root: str | Path | None) -> Dataset:
    """Generated digits that lie between classes; ``y`` is the likeliest class.

    ``extra`` holds ``probability`` (n, 10) and ``label`` (n, 10), ten classes drawn from it for each image.
    """
    npz = Npz(find("ambiguous-mnist", (AMBIGUOUS_MNIST,), root))
    probability = npz[f"{split}_probability"]
    source = "rebuilt with a VAE on MNIST in place of the published Ambiguous-MNIST"
    y = probability.argmax(1)
    plain = _images("ambiguous-mnist", split, npz[f"{split}_image"], y, MNIST_LICENCE, source)
    return replace(plain, extra={"probability": probability, "label": npz[f"{split}_label"]})


def dirty_mnist(split: str, root: str | Path | None) -> Dataset:
    """MNIST and the ambiguous digits together, each of the latter once with every label drawn for it.

    "Deep Deterministic Uncertainty: A New Simple Baseline" (Mukhoti et al., 2023). In the test split an image has each
    label once.
    """
    clear, unclear = mnist(split, root), ambiguous_mnist(split, root)
    labels = unclear.extra["label"].astype(np.int64)
    rows, columns = np.indices(labels.shape).reshape(2, -1)
    if split == "test":
        kept = np.unique(np.stack([rows, labels.ravel()]), axis=1, return_index=True)[1]
        rows, columns = rows[kept], columns[kept]
    x = np.concatenate([clear.x[:, 0], unclear.x[rows, 0]])
    y = np.concatenate([clear.y, labels[rows, columns]])
    return _images("dirty-mnist", split, x, y, MNIST_LICENCE, f"{clear.source}; {unclear.source}")


def digits(split: str, root: str | Path | None) -> Dataset:
    """scikit-learn's 1797 digits, 8x8 grey in [0, 1]; a fixed stratified 360 of them are the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    whole = Dataset(
        name="digits",
        split=split,
        x=(bunch.images[:, None] / 16).astype(np.float32),
        y=bunch.target.astype(np.int64),
        classes=DIGITS,
        mean=(0.3053,),
        std=(0.3761,),
        licence="CC BY 4.0",
        source="UCI optical recognition of handwritten digits, as bundled with scikit-learn",
        index=np.arange(len(bunch.target)),
    )
    return whole.hold_out(360, seed=0)[0 if split == "train" else 1]
