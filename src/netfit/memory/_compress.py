"""Compress what a model saves, without a change to the model: as a handle or as a context."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn

from netfit.errors import ConfigError, did_you_mean
from netfit.seeding import derive
from netfit.surgery import Policy
from netfit.workload import CallSite, CallSites

from ._modules import swap_modules
from ._save_as import SaveAs
from ._saver import Observer, Saver, refuse_compilation
from .codecs import Codec, Keep, parse

__all__ = ["CodecPolicy", "Handle", "Watch", "compress_saved", "compressed_saved", "read_policy"]

_WILD = frozenset("*?[")
CodecPolicy = str | Codec | Mapping[str, str | Codec] | Policy


class Handle:
    """Takes back what was done; also when used as a context."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    def remove(self) -> None:
        """Save as before; what is packed already stays packed."""
        if self._undo is not None:
            self._undo()
        self._undo = None

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def compress_saved(
    model: nn.Module, policy: CodecPolicy, *, engine: Literal["hooks", "modules"] = "hooks", seed: int = 0
) -> Handle:
    """Keep by a codec what a model saves for its backward pass, from the next forward pass on.

    Args:
        model: left as it is, but for the hooks (or the classes of its normalization layers).
        policy: a codec or its word for everything (``"q4"``, ``"pool2"``, ``"bsr10"``, ``"bsr25"``, ``"lossless"``),
            or patterns over site names and ``"kind:..."`` to codecs, or a `Policy` with `SaveAs`. Later ones win.
        engine: ``"hooks"`` sees every operation and cannot be compiled; ``"modules"`` gives BatchNorm and LayerNorm,
            whose inputs a compiler cannot recompute, a backward pass of their own, and can.
        seed: of random rounding.

    Raises:
        ConfigError: a word or pattern cannot be read. Patterns that match nothing are found in the first forward pass.

    Example:
        >>> net, x = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)), torch.randn(256, 64)
        >>> handle = compress_saved(net, {"kind:gelu": "q4"})
        >>> net(x).mean().backward()
        >>> handle.remove()
    """
    entries = read_policy(policy)
    if engine == "modules":
        return Handle(swap_modules(model, entries, seed))
    if engine != "hooks":
        raise ConfigError(f"engine={engine!r}: choose 'hooks' or 'modules'")
    return Handle(Watch(model, entries, seed).remove)


@contextmanager
def compressed_saved(model: nn.Module, policy: CodecPolicy, *, seed: int = 0) -> Iterator[None]:
    """`compress_saved` for the forward passes inside a ``with``; the backward pass may come later."""
    handle = compress_saved(model, policy, seed=seed)
    try:
        yield
    finally:
        handle.remove()


def read_policy(policy: CodecPolicy) -> dict[str, Codec]:
    """Pattern to codec, in order.

    Raises:
        ConfigError: an unknown codec, or a policy without `SaveAs`.
    """
    if isinstance(policy, str | Codec):
        policy = {"*": policy}
    if isinstance(policy, Policy):
        policy = {pattern: t.codec for pattern, listed in policy.items() for t in listed if isinstance(t, SaveAs)}
        if not policy:
            raise ConfigError("the policy says nothing about saved tensors: it holds no save_as")
    return {pattern: codec if isinstance(codec, Codec) else parse(codec) for pattern, codec in policy.items()}


class Watch:
    """Opens `CallSites` around each forward pass of a model.

    Attributes:
        site: the operation that runs, None outside of the model.
        arguments: what it was called with.
    """

    def __init__(
        self, model: nn.Module, entries: Mapping[str, Codec], seed: int, observer: Observer | None = None
    ) -> None:
        # A plan names every tensor: names are looked up, and only patterns are tried one after the other.
        numbered = [(i, pattern, codec) for i, (pattern, codec) in enumerate(entries.items())]
        self._named = {entry[1]: entry for entry in numbered if not _WILD.intersection(entry[1])}
        self._patterns = [entry for entry in numbered if _WILD.intersection(entry[1])]
        self._seed = seed
        self._saver = Saver(observer)
        self.site: CallSite | None = None
        self.arguments: tuple[Any, ...] = ()
        self._mode: CallSites | None = None
        self._step = self._index = 0
        self._seen: dict[tuple[str, str], Codec] = {}
        self._unmatched: set[str] | None = set(entries)
        self._removers = [
            model.register_forward_pre_hook(self._enter),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    def remove(self) -> None:
        for handle in self._removers:
            handle.remove()

    def _enter(self, model: nn.Module, args: Any) -> None:
        refuse_compilation()
        if torch.is_grad_enabled() and self._mode is None:
            self._step, self._index = self._step + 1, 0
            self._mode = CallSites(model, self._handle)
            self._mode.__enter__()
            self._mode.open_root()

    def _leave(self, model: nn.Module, args: Any, result: Any) -> None:
        if self._mode is None:
            return
        self._mode.__exit__(None, None, None)
        self._mode = None
        if self._unmatched and result is not None:
            pattern = sorted(self._unmatched)[0]
            known = {name for name, _ in self._seen} | {f"kind:{kind}" for _, kind in self._seen}
            self._unmatched = None
            raise ConfigError(f"pattern {pattern!r} matches no operation: {did_you_mean(pattern, known)}")
        self._unmatched = None

    def _handle(self, site: CallSite, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        codec = self._codec(site)
        self._index += 1
        seed = derive(self._seed, "saved", self._step, self._index)
        self.site, self.arguments = site, (args, kwargs)
        try:
            return self._saver.run(codec, site.kind, func, args, kwargs, seed)
        finally:
            self.site, self.arguments = None, ()

    def _codec(self, site: CallSite) -> Codec:
        key = site.name, site.kind
        if key not in self._seen:
            names = (site.name, f"kind:{site.kind}")
            hits = [self._named[name] for name in names if name in self._named]
            hits += [entry for entry in self._patterns if fnmatchcase(names[entry[1].startswith("kind:")], entry[1])]
            self._seen[key] = max(hits)[2] if hits else Keep()  # the last entry, whose number decides
            if self._unmatched:
                self._unmatched -= {pattern for _, pattern, _ in hits}
        return self._seen[key]
