"""One codec after another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._base import Codec, Packed, Spec

__all__ = ["Compose"]


@dataclass(frozen=True)
class Compose(Codec):
    """The values that `first` keeps, kept by `second`: ``Compose(Pool(2), KBit(8))``.

    Args:
        first: shrinks the tensor.
        second: shrinks what is left.
    """

    first: Codec
    second: Codec

    @property
    def inputs_only(self) -> bool:  # type: ignore[override]
        """As strict as the stricter of the two."""
        return self.first.inputs_only or self.second.inputs_only

    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep what `second` makes of the values."""
        outer = self.first.pack(x, seed)
        inner = self.second.pack(outer.tensors[0], seed)
        rest = len(outer.tensors) - 1

        def rebuild(*tensors: Tensor) -> Tensor:
            kept = len(tensors) - rest
            return outer.rebuild(inner.rebuild(*tensors[:kept]), *tensors[kept:])

        return Packed((*inner.tensors, *outer.tensors[1:]), rebuild)

    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """The second's of the first's."""
        values, *rest = self.first.payload(shape, dtype)
        return (*self.second.payload(*values), *rest)

    def __str__(self) -> str:
        return f"{self.first}+{self.second}"
