"""Check the data files and the loaders: ``make data-check``.

A file must have its known SHA-256, and a trivial classifier on what a loader returns must reach the accuracy that
such a classifier reached on the file when it was made: a loader that lands under it is broken. What is absent is
listed and does not count. Exit status 1 when anything present fails.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from netfit import data
from netfit.errors import DataNotFound, MissingExtraError, NetfitError

SHA256 = {
    "ambiguous_mnist.npz": "726b4c15a5a58418e5e6ed82f51ed1ccfc180abd497f8b0c340e3e98ea5fef8a",
    "asd.npz": "225610ac678fb88dabb99378cda184b21b34c3c0a56b9240021847bfa7e2527d",
    "bn_classifier_splits.npz": "2a7d280be49d921bdb6889d74559e3103e4cd7e66b60ac8a3180abeb8c00e997",
    "cifar10_jpeg.npz": "0a4e77b18d00b97588be63890a26faadfed3aeac8c3236022b8dd5623f030049",
    "deepbench_problems.json": "df8fa1600f0048319070b7e28c5a327a09b431d0492e1ad898ca57ecc6149e82",
    "fsdd.npz": "4747b85e8ac18cb748be826c3ed641e59b5054a1fa7e9328097e1deefa37d9f8",
    "gpu_kernels.npz": "8120d39f5ef99e59fc380e0e0bc127f6932522f67e9f1d56ee764864679cab94",
    "kernel_tuning.npz": "83fa2ff2aa0d41a0c1f084141df5795d665f783e7703cf69c616a2fb9fa3f237",
    "mnist.npz": "a7c02ce5818c2ed438ee324012a60a696e38b63f5f45a792d33bbaf650c013ef",
    "pfp_pretrained/vi_model_20240730_e40_lenet.pt": "78846c236448374337934e2c2e56a0ed252a35d6b1881882202186d96b314d1a",
    "pfp_pretrained/vi_model_20240730_e40_mlp.pt": "bda97a3f83649170d055ea12fddc84e484a7bfdb32de1bf2e674ecff9189e249",
    "skab.npz": "3d4b25e13714703e8f41cc826a97338aa46bbe981c21a1dfbd739d0ee549b15c",
    "smd.npz": "e71ad6219cf7970cc66d0e89a05e261c8477912adb5feeda999514d84ee62ce0",
    "svi_reference.npz": "1a0946142848f0572b8fb4665586143935d81f8e169c119ed053d392c91614ff",
    "tiny_imagenet20.npz": "98331d510d8968f00ed41143e2d10dbfe46f5692859363265a70271f302ed94b",
    "uci_tables.npz": "5cd91d5f83e993a84da531b33127d7a8a0a0667077a9e7e99c7cc4ca0c350a74",
    "wake_words.npz": "393e5ff9763267ee7d2efaeb39012a9bb4d04f48c8dad6ef3bae00f861bc518d",
}


def logistic(train: data.Dataset, test: data.Dataset) -> float:
    """Logistic regression on at most 8000 normalised, flattened samples."""
    from sklearn.linear_model import LogisticRegression

    train = train.subset(np.arange(min(8000, len(train))))
    model = LogisticRegression(C=0.01, max_iter=1000).fit(_flat(train), train.y)
    return float(model.score(_flat(test), test.y))


def naive_bayes(train: data.Dataset, test: data.Dataset) -> float:
    """Gaussian naive Bayes on the raw columns; the smoothing is the one the floors were measured with."""
    from sklearn.naive_bayes import GaussianNB

    smoothing = 0.01 if train.name == "table:usps" else 1e-9
    return float(GaussianNB(var_smoothing=smoothing).fit(train.x, train.y).score(test.x, test.y))


def _flat(part: data.Dataset) -> Any:
    return part.tensors()[0].flatten(1).numpy()


# As measured when the files were made; sets that came without a figure are not listed.
FLOORS: dict[str, tuple[Callable[[data.Dataset, data.Dataset], float], float]] = {
    "mnist": (logistic, 0.90),
    "fsdd": (logistic, 0.947),
    "wake-words": (logistic, 0.93),
    "table:letter": (naive_bayes, 0.625),
    "table:satimage": (naive_bayes, 0.796),
    "table:usps": (naive_bayes, 0.796),
}


def check_file(path: Path, sha256: str) -> tuple[str, str]:
    """Status and detail of one file."""
    if not path.is_file():
        return "absent", ""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return ("ok", "sha256") if found == sha256 else ("FAILED", f"sha256 is {found}")


def check_floor(name: str) -> tuple[str, str]:
    """Status and detail of one loader."""
    score, floor = FLOORS[name]
    try:
        accuracy = score(data.load(name), data.load(name, "test"))
    except (DataNotFound, MissingExtraError) as e:
        return "absent", str(e)
    except NetfitError as e:
        return "FAILED", str(e)
    status = "ok" if accuracy >= floor else "FAILED"
    return status, f"{score.__name__} {accuracy:.4f}, floor {floor:.3f}"


def main() -> int:
    """Print the table; 0 when everything present is as it should be."""
    if "NETFIT_DATA" not in os.environ:
        print("data-check: set NETFIT_DATA to the folder that holds the data files", file=sys.stderr)
        return 2
    root = Path(os.environ["NETFIT_DATA"])
    rows = [(name, *check_file(root / name, sha256)) for name, sha256 in SHA256.items()]
    rows += [(name, *check_floor(name)) for name in FLOORS]
    table = Table("data", "status", "detail", box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    return int(any(status == "FAILED" for _, status, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
