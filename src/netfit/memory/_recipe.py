"""How a tensor is made again from what was saved before it."""

import inspect
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._kinds import CHEAP
from .codecs import Packed

__all__ = ["Origin", "Recipe", "origin"]

_BATCH_NORM = inspect.signature(F.batch_norm)


@dataclass(frozen=True)
class Recipe:
    """A call that can be made again; `source` makes the one tensor that is missing among its arguments."""

    call: Callable[[Tensor], Tensor]
    source: "Packed | Recipe"

    def make(self) -> Tensor:
        """The result once more."""
        return self.call(self.source.unpack() if isinstance(self.source, Packed) else self.source.make())


@dataclass(frozen=True)
class Origin:
    """The same without a claim on memory: what was saved may be freed, and then there is no recipe."""

    call: Callable[[Tensor], Tensor]
    source: "weakref.ref[Packed] | Origin"

    def recipe(self) -> Recipe | None:
        """A recipe that keeps what it needs alive."""
        source = self.source.recipe() if isinstance(self.source, Origin) else self.source()
        return None if source is None else Recipe(self.call, source)


def origin(
    kind: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Callable[[Tensor], Tensor]] | None:
    """The one tensor an operation reads besides parameters, and the operation as a function of it.

    None when the operation is not cheap, reads more than that, or would do something besides (BatchNorm's running
    statistics are left out of the second run: the batch decides its result).
    """
    name = getattr(func, "__name__", "")
    if kind not in CHEAP or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i"):
        return None
    if kind == "batch_norm":
        bound = _BATCH_NORM.bind(*args, **kwargs).arguments
        if not bound.get("training"):
            return None
        args, kwargs = (bound.pop("input"),), bound | {"running_mean": None, "running_var": None}
    if kwargs.get("inplace"):
        kwargs = {**kwargs, "inplace": False}
    given = [*args, *kwargs.values()]
    tensors = [x for x in given if isinstance(x, Tensor) and not isinstance(x, nn.Parameter)]
    place = next((i for i, x in enumerate(args) if tensors and x is tensors[0]), None)
    if len(tensors) != 1 or place is None or any(isinstance(x, list | tuple) for x in given):
        return None
    before, after, same = args[:place], args[place + 1 :], _precision(tensors[0].device.type)

    def call(x: Tensor) -> Tensor:
        with same():
            result: Tensor = func(*before, x, *after, **kwargs)
            return result

    return tensors[0], call


def _precision(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """The autocast of now, for the backward pass, which runs outside of it."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype, enabled)
