"""Names to loaders."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from netfit.errors import ConfigError, did_you_mean

from ._audio import fsdd, wake_words
from ._dataset import Dataset
from ._images import ambiguous_mnist, digits, dirty_mnist, fashion_mnist, mnist
from ._jpeg import cifar10, tiny_imagenet20
from ._splits import NAMES as SPLIT_NAMES
from ._splits import discrete
from ._tables import NAMES, table

Loader = Callable[[str, str | Path | None], Dataset]

LOADERS: dict[str, Loader] = {
    "ambiguous-mnist": ambiguous_mnist,
    "cifar10": cifar10,
    "digits": digits,
    "dirty-mnist": dirty_mnist,
    "fashion-mnist": fashion_mnist,
    "fsdd": fsdd,
    "mnist": mnist,
    "tiny-imagenet20": tiny_imagenet20,
    "wake-words": wake_words,
    **{f"discrete:{name}": partial(discrete, name) for name in SPLIT_NAMES},
    **{f"table:{name}": partial(table, name) for name in NAMES},
}
SPLITS = ("train", "test")


def names() -> list[str]:
    """Every name that ``load`` takes, sorted."""
    return sorted(LOADERS)


def load(name: str, split: str = "train", root: str | Path | None = None) -> Dataset:
    """Load one split of a data set.

    Files are looked for in ``root``, ``$NETFIT_DATA``, the user cache and Debian's data packages, then
    downloaded with a checksum where an official file can be fetched.

    Args:
        name: one of ``names()``.
        split: ``"train"`` or ``"test"``.
        root: folder to look in first.

    Raises:
        ConfigError: unknown name or split.
        DataNotFound: the file is nowhere; the message says its size, licence and where to get it.
        ArtifactError: the file is damaged.
    """
    if name not in LOADERS:
        raise ConfigError(f"unknown data set {name!r}; {did_you_mean(name, LOADERS)}")
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r} of {name}; {did_you_mean(split, SPLITS)}")
    return LOADERS[name](split, root)
