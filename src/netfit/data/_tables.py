"""Classification tables: the UCI tables of the Bayesian-network-classifier work, and USPS."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ._dataset import Dataset
from ._files import Npz, Source, find

TABLES = Source("uci_tables.npz", 3_818_884, "CC BY 4.0", "the UCI repository or OpenML")

NAMES = (
    "breastcancer", "dna", "glass", "housevotes84", "ionosphere", "letter", "pimaindiansdiabetes", "satimage",
    "shuttle", "sonar", "soybean", "spam", "usps", "vehicle", "vowel", "zoo",
)  # fmt: skip

# Tables whose literature trains on the first rows and tests on the rest.
FIRST_ROWS = {"letter": 16000, "satimage": 4435}


def table(name: str, split: str, root: str | Path | None) -> Dataset:
    """One table as float32 (n, features); a missing value is NaN in ``x`` and the mean in ``tensors()``.

    letter and satimage have their customary splits and usps its own; of the others a fixed stratified quarter
    is the test split.
    """
    npz = Npz(find(f"table:{name}", (TABLES,), root))
    if name == "usps":
        x = np.concatenate([npz["usps/X_train"], npz["usps/X_test"]])
        y = np.concatenate([npz["usps/y_train"], npz["usps/y_test"]])
        first = len(npz["usps/y_train"])
        classes = tuple(str(d) for d in range(10))
    else:
        x, y = npz[f"{name}/X"], npz[f"{name}/y"]
        first = FIRST_ROWS.get(name, 0)
        classes = tuple(str(c) for c in npz[f"{name}/classes"])
    whole = Dataset(
        name=f"table:{name}",
        split=split,
        x=x,
        y=y.astype(np.int64),
        classes=classes,
        mean=(0.0,),
        std=(1.0,),
        licence=TABLES.licence,
        source="USPS digits, 16x16 in [-1, 1]" if name == "usps" else f"UCI {name}",
        index=np.arange(len(x)),
    )
    if first:
        train, test = whole.subset(np.arange(first)), whole.subset(np.arange(first, len(x)))
    else:
        train, test = whole.hold_out(round(len(x) / 4), seed=0)
    return with_statistics(train if split == "train" else test, train.x)


def with_statistics(part: Dataset, train: NDArray[np.float32]) -> Dataset:
    """The same data with mean and deviation of each training column; constant columns keep deviation 1."""
    mean, std = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    std[std == 0] = 1
    return replace(part, mean=tuple(map(float, mean)), std=tuple(map(float, std)))
