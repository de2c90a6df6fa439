"""What a loader returns: labelled arrays in the layout that a network sees, still in their storage type.

Pixels stay ``uint8`` and are normalised on the way into a tensor: CIFAR-10 is 150 MB instead of 600 MB, and
may be a read-only memory map that several processes share. numpy only, so that work without torch can use it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netfit.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples of one split of one data set.

    Args:
        name: name under which ``load`` knows it.
        split: ``"train"`` or ``"test"``.
        x: samples, first axis the batch; ``uint8`` pixels or ``float32`` values. Images are (n, C, H, W).
        y: class numbers, int64 (n,).
        classes: name of each class.
        mean: per channel (axis 1), after ``uint8`` has been scaled to [0, 1].
        std: per channel, in the same unit as ``mean``.
        licence: licence of the data.
        source: where the data comes from, and what was done to it.
        index: int64 (n,), the row of each sample in the complete split; lets ``check_disjoint`` compare subsets.
        extra: further columns of the samples by name, first axis n each (speaker, take, ...).

    Raises:
        ConfigError: the arrays differ in length.
    """

    name: str
    split: str
    x: NDArray[Any] = field(repr=False)
    y: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    mean: tuple[float, ...] = field(repr=False)
    std: tuple[float, ...] = field(repr=False)
    licence: str
    source: str = field(repr=False)
    index: NDArray[np.int64] = field(repr=False)
    extra: dict[str, NDArray[Any]] = field(repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        columns = {"y": self.y, "index": self.index, **self.extra}
        for name, column in columns.items():
            if len(column) != len(self.x):
                raise ConfigError(f"{self.name}: {len(self.x)} samples but {len(column)} entries in {name}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input as the network sees it, without the batch: (C, H, W) for images."""
        return tuple(self.x.shape[1:])

    def tensors(self, indices: ArrayLike | None = None) -> tuple[Tensor, Tensor]:
        """Normalised float32 inputs and int64 labels as torch tensors; NaN (a missing value) becomes the mean.

        Args:
            indices: positions in this data set to take; all of them when None.

        Raises:
            ConfigError: an index lies outside the data set.
        """
        import torch  # only here: a Dataset itself needs no torch

        part = self if indices is None else self.subset(indices)
        x = part.x.astype(np.float32)  # always a copy: the stored array must survive the in-place steps
        channels = (1, -1) + (1,) * (x.ndim - 2)
        if part.x.dtype == np.uint8:
            x /= 255
        x -= np.asarray(part.mean, np.float32).reshape(channels)
        x /= np.asarray(part.std, np.float32).reshape(channels)
        x[np.isnan(x)] = 0
        return torch.from_numpy(x), torch.from_numpy(part.y.copy())

    def subset(self, indices: ArrayLike) -> Dataset:
        """The samples at these positions, in that order.

        Raises:
            ConfigError: an index lies outside the data set.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.ndim != 1 or (len(rows) and (rows.min() < 0 or rows.max() >= len(self))):
            raise ConfigError(f"{self.name}: indices must be a list of numbers from 0 to {len(self) - 1}")
        extra = {name: column[rows] for name, column in self.extra.items()}
        return replace(self, x=self.x[rows], y=self.y[rows], index=self.index[rows], extra=extra)

    def hold_out(self, n: int, seed: int) -> tuple[Dataset, Dataset]:
        """Split off ``n`` samples with the class proportions of the whole (largest remainder).

        Args:
            n: number of samples to hold out.
            seed: of the draw; the same seed gives the same samples.

        Returns:
            The rest and the held-out part, both in their original order.

        Raises:
            ConfigError: ``n`` leaves one side empty.

        >>> from netfit.data import load
        >>> rest, held = load("digits").hold_out(200, seed=0)
        >>> len(rest), len(held), held.shape
        (1237, 200, (1, 8, 8))
        """
        if not 0 < n < len(self):
            raise ConfigError(f"{self.name}: cannot hold out {n} of {len(self)} samples")
        rng = np.random.default_rng(seed)
        labels, counts = np.unique(self.y, return_counts=True)
        quota = counts * n / len(self)
        take = np.floor(quota).astype(np.int64)
        most_cut = np.argsort(take - quota, kind="stable")[: n - int(take.sum())]
        take[most_cut] += 1
        chosen = [rng.permutation(np.flatnonzero(self.y == c))[:k] for c, k in zip(labels, take, strict=True)]
        held = np.zeros(len(self), dtype=bool)
        held[np.concatenate(chosen)] = True
        return self.subset(np.flatnonzero(~held)), self.subset(np.flatnonzero(held))


def check_disjoint(a: Dataset, b: Dataset) -> None:
    """Refuse two sets that share a sample: a network must not be judged on what it was trained on.

    Raises:
        ConfigError: both are of the same split of the same data set and overlap.
    """
    if (a.name, a.split) != (b.name, b.split):
        return
    shared = np.intersect1d(a.index, b.index)
    if len(shared):
        raise ConfigError(
            f"{a.name}/{a.split}: {len(shared)} samples are in both sets (such as row {shared[0]}); "
            "split one set with hold_out instead"
        )
