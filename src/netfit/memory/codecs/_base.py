"""What a codec is: a way to keep a tensor for the backward pass in fewer bytes than it has."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Codec", "Packed", "Spec", "flattened"]

Spec = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class Packed:
    """What is kept of a tensor.

    Args:
        tensors: everything that takes memory.
        rebuild: makes the tensor (or what stands for it) from them; may be called any number of times.
    """

    tensors: tuple[Tensor, ...]
    rebuild: Callable[..., Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(t.nbytes for t in self.tensors)

    def unpack(self) -> Tensor:
        """The tensor, up to the codec's error."""
        return self.rebuild(*self.tensors)


class Codec(ABC):
    """Base of the frozen dataclasses that say how a saved tensor is kept. ``str`` gives the word `parse` reads.

    Attributes:
        lossless: whether gradients stay as they are.
        inputs_only: fit only for what a convolution or a matrix product reads, where an error stays in that one
            weight's gradient instead of spreading to everything below.
    """

    lossless: ClassVar[bool] = False
    inputs_only: ClassVar[bool] = False

    @abstractmethod
    def pack(self, x: Tensor, seed: int = 0) -> Packed:
        """Keep `x`.

        Args:
            x: floating point, any layout; needs no gradient.
            seed: of random rounding.
        """

    @abstractmethod
    def payload(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, ...]:
        """Shape and dtype of every tensor that `pack` keeps of a tensor like this."""

    def nbytes(self, shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes that `pack` keeps of a tensor like this."""
        return sum(prod(s) * d.itemsize for s, d in self.payload(shape, dtype))


def flattened(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Values in the order they lie in memory (channels-last stays so), and the way back from a flat tensor.

    The order decides which values share a group, and a restored tensor of another layout would be copied by the
    backward kernel.
    """
    shape, stride, dtype = tuple(x.shape), x.stride(), x.dtype
    if not _dense(x):
        return x.reshape(-1), lambda flat: flat.to(dtype).view(shape)
    flat = x.as_strided((x.numel(),), (1,), x.storage_offset())
    return flat, lambda values: values.to(dtype).as_strided(shape, stride)


def _dense(x: Tensor) -> bool:
    """Whether the values fill one stretch of memory, in any order of dimensions."""
    expected = 1
    for stride, size in sorted((st, n) for st, n in zip(x.stride(), x.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True
