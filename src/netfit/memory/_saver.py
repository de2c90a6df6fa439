"""The hook engine: what autograd saves of one operation goes through a codec.

Hooks on saved tensors see every tensor, of modules and of functional code alike, but not which operation saves it.
So they are opened around one call at a time, by somebody who knows the call (`netfit.workload.CallSites`).
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from netfit.errors import ConfigError

from ._convolution import convolution, convolution_fits
from ._kinds import INPUTS, LEAST, NORMS, POOLS, kept_as
from ._recipe import Origin, origin
from ._sparse_linear import sparse_linear, sparse_linear_fits
from .codecs import BlockSparse, Codec, Keep, Packed, Recompute, ShapeOnly, SignMask

__all__ = ["Observer", "Saver", "kept", "refuse_compilation", "tensors_in"]

Key = tuple[int, int, tuple[int, ...], tuple[int, ...], int]


class Observer:
    """Sees what is packed and when it is read; what it does here is nothing."""

    def packed(self, t: Tensor, packed: Packed) -> None:
        """A tensor was saved by the operation that runs."""

    def unpacked(self, packed: Packed) -> None:
        """The backward pass is about to read it."""


class Saver:
    """Runs operations and packs what they save; knows what it packed, so that a tensor saved twice is kept once.

    The memory of a freed tensor is soon the memory of another one, so an address does not identify a tensor: its
    storage does, held by a weak reference that says when it is gone.

    Args:
        observer: sees every tensor that is saved, also those that are kept as they are.
    """

    def __init__(self, observer: Observer | None = None) -> None:
        self._observer = observer
        self._packed: dict[tuple[Key, str], tuple[StorageWeakRef, weakref.ref[Packed]]] = {}
        self._values: dict[Key, tuple[StorageWeakRef, weakref.ref[Packed]]] = {}  # those that give the values back
        self._origins: dict[Key, tuple[StorageWeakRef, Origin]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Saver":
        return Saver()

    def run(
        self,
        codec: Codec,
        kind: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seed: int,
    ) -> Any:
        """Call an operation.

        Args:
            codec: how to keep what it saves; one that does not fit the operation keeps it as it is.
            kind: of the operation.
            func: the operation.
            args: of the call.
            kwargs: of the call.
            seed: of random rounding.
        """
        chosen, seen = kept_as(codec, kind), self._observer
        if not torch.is_grad_enabled() or _checkpointed():
            return func(*args, **kwargs)
        if convolution_fits(func, *args, **kwargs):
            func = convolution
        if isinstance(chosen, Keep) and seen is None:
            return func(*args, **kwargs)
        sparse = chosen if isinstance(chosen, BlockSparse) and func is F.linear and not seen else None
        if sparse is not None and sparse_linear_fits(sparse, *args, **kwargs):
            return sparse_linear(sparse, *args, **kwargs)
        made = origin(kind, func, args, kwargs)
        source = None if made is None else (_key(made[0]), self._origin_of(made[0]))
        # Autograd keeps the hooks as long as what they packed: they must not hold a tensor of the call.
        wanted = _wanted(kind, args, kwargs)
        maps = next(tensors_in((args, kwargs))).shape[2:] if kind in POOLS else torch.Size()
        places = maps.numel() if isinstance(chosen, ShapeOnly) else 0

        def pack(t: Tensor) -> Packed:
            if places and t.dtype == torch.int64 and t.numel() >= LEAST:
                packed = _narrow(t, places)
            else:
                packed = self._pack(t, chosen, seed) if wanted(t) else kept(t)
            if seen is not None:
                seen.packed(t, packed)
            return packed

        def unpack(packed: Packed) -> Tensor:
            if seen is not None:
                seen.unpacked(packed)
            return _unpack(packed, chosen)

        with saved_tensors_hooks(pack, unpack):
            result = func(*args, **kwargs)
        if made is not None and source is not None and isinstance(result, Tensor):
            self._remember(result, made[1], *source)
        return result

    def _pack(self, t: Tensor, codec: Codec, seed: int) -> Packed:
        key = _key(t)
        found = self._packed.get((key, str(codec)))
        packed = None if found is None or found[0].expired() else found[1]()
        if packed is None:
            with torch.no_grad():
                packed = self._recomputed(t) if isinstance(codec, Recompute) else _encoded(t, codec, seed)
            entry = StorageWeakRef(t.untyped_storage()), weakref.ref(packed)
            self._packed[key, str(codec)] = entry
            if not isinstance(codec, SignMask | ShapeOnly):
                self._values[key] = entry
        return packed

    def _recomputed(self, t: Tensor) -> Packed:
        known = self._origin_of(t)
        recipe = None if known is None else known.recipe()
        if recipe is None:
            return kept(t)
        shape, stride = tuple(t.shape), t.stride()

        def rebuild() -> Tensor:
            made = recipe.make().reshape(shape)
            return made if made.stride() == stride else made.new_empty_strided(shape, stride).copy_(made)

        return Packed((), rebuild)

    def _origin_of(self, t: Tensor) -> Origin | None:
        """Where a tensor comes from; a reshaped view of a dense result has its origin."""
        for key in (_key(t), _flat_key(t)):
            found = self._origins.get(key)
            if found is not None and not found[0].expired():
                return found[1]
        return None

    def _remember(self, result: Tensor, call: Callable[[Tensor], Tensor], source: Key, before: Origin | None) -> None:
        for table in (self._packed, self._values, self._origins):
            _forget_freed(table)
        saved = self._values.get(source)
        live = saved is not None and not saved[0].expired() and saved[1]() is not None
        parent = saved[1] if saved is not None and live else before
        if parent is not None:
            entry = StorageWeakRef(result.untyped_storage()), Origin(call, parent)
            self._origins[_key(result)] = entry
            if result.is_contiguous():
                self._origins[_flat_key(result)] = entry


def refuse_compilation() -> None:
    """Hooks would pack what one big compiled operation saves, and unpack it all at once: nothing would be gained.

    Raises:
        ConfigError: the code is being compiled.
    """
    if torch.compiler.is_compiling():
        raise ConfigError("saved tensors cannot be packed by hooks under torch.compile: use engine='modules'")


def _forget_freed(table: dict[Any, Any]) -> None:
    if len(table) % 64 == 63:  # now and then: to look through all of it at every operation takes quadratic time
        for key in [k for k, (storage, _) in table.items() if storage.expired()]:
            del table[key]


def _key(t: Tensor) -> Key:
    return t.untyped_storage()._cdata, int(t.storage_offset()), tuple(t.shape), t.stride(), t._version


def _flat_key(t: Tensor) -> Key:
    flat = ((t.numel(),), (1,)) if t.is_contiguous() else ((), ())
    return t.untyped_storage()._cdata, int(t.storage_offset()), *flat, t._version


def _encoded(t: Tensor, codec: Codec, seed: int) -> Packed:
    return kept(t) if isinstance(codec, Keep) else codec.pack(t.detach(), seed)


def kept(t: Tensor) -> Packed:
    """The tensor itself; like autograd, refuse it when it was changed in place since."""
    version, own = t._version, t.detach()  # with its history the node would hold itself

    def rebuild(kept: Tensor) -> Tensor:
        if kept._version != version:
            raise RuntimeError(
                f"a tensor of shape {tuple(kept.shape)} that the backward pass needs was changed by an in-place "
                f"operation: it is at version {kept._version}, expected {version}"
            )
        return kept

    return Packed((own,), rebuild)


def _unpack(packed: Packed, codec: Codec) -> Tensor:
    if torch.is_grad_enabled() and not codec.lossless:
        raise ConfigError(f"a gradient of a gradient needs exact activations: keep them instead of {codec}")
    with torch.no_grad():
        return packed.unpack()


def _narrow(t: Tensor, places: int) -> Packed:
    """Indices into a map of so many places, in as few bytes as it needs."""
    small = torch.int16 if places <= 2**15 else torch.int32 if places <= 2**31 else torch.int64
    return Packed((t.to(small),), lambda kept: kept.long())


def _checkpointed() -> bool:
    """Whether torch's checkpoint is at work here: what it covers is recomputed, not saved."""
    top = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return top is not None and top[0].__module__ == "torch.utils.checkpoint"


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Every tensor in nested arguments."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        yield from tensors_in(tuple(values.values()))


def _wanted(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], bool]:
    """Which of the tensors that an operation saves are activations worth packing.

    Parameters and the batch stay in memory anyway. A convolution also saves its weight, perhaps rounded or cast, and
    a normalization its statistics.
    """
    held = {
        t.untyped_storage()._cdata
        for t in tensors_in((args, kwargs))
        if isinstance(t, nn.Parameter) or not t.requires_grad
    }
    first = args[0] if args and isinstance(args[0], Tensor) else None
    x, size = (None, 0) if first is None else (first.untyped_storage()._cdata, first.numel())
    weight = kwargs.get("weight", args[1] if len(args) > 1 else None) if kind in INPUTS else None
    shapes = {tuple(weight.shape), tuple(weight.shape)[::-1]} if isinstance(weight, Tensor) else set()
    exact = kind in INPUTS | NORMS

    def wanted(t: Tensor) -> bool:
        storage = t.untyped_storage()._cdata
        if not t.is_floating_point() or t.numel() < LEAST or storage in held:
            return False
        if x is None or storage == x:
            return True
        if not exact:
            return 4 * t.numel() >= size  # an error of attention's row sums would be exponentiated
        return t.numel() == size and tuple(t.shape) not in shapes

    return wanted
