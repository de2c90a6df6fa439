"""Tables as the Bayesian-network-classifier work published them: already discretised, with its own splits."""

from pathlib import Path

import numpy as np

from ._dataset import Dataset
from ._files import Npz, Source, find
from ._tables import with_statistics

__all__ = ["NAMES", "discrete"]

SPLITS = Source("bn_classifier_splits.npz", 1_405_935, "CC BY 4.0 (UCI); USPS", "github.com/wroth8/bnc")

_FOLDS = {"letter": 1, "satimage": 5, "usps": 1}
NAMES = (*_FOLDS, *(f"satimage:{fold}" for fold in range(2, 6)))


def discrete(name: str, split: str, root: str | Path | None) -> Dataset:
    """Numbers of intervals, int16 (n, features), from 0; ``satimage:2`` is its second fold of five."""
    table, _, fold = name.partition(":")
    npz = Npz(find(f"discrete:{name}", (SPLITS,), root))
    parts = {}
    for word, short in (("train", "tr"), ("test", "te")):
        x, y = (npz[f"{table}/{letter}_{short}_fold{fold or 1}"] for letter in "xt")
        parts[word] = (x.astype(np.int16) - 1, y.astype(np.int64))  # the file counts intervals from 1
    x, y = parts[split]
    labels = tuple(str(c) for c in range(int(parts["train"][1].max()) + 1))
    found = Dataset(
        name=f"discrete:{name}",
        split=split,
        x=x,
        y=y,
        classes=labels,
        mean=(0.0,),
        std=(1.0,),
        licence=SPLITS.licence,
        source=f"{table}, discretised by Fayyad and Irani's method",
        index=np.arange(len(x)),
    )
    return with_statistics(found, parts["train"][0].astype(np.float32))
