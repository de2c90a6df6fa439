"""Noise at one site leaves everything before it as it was: computed once for many sites, levels and seeds."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from netfit.workload import CallSites

__all__ = ["PrefixCache"]

Key = tuple[str, int]


class PrefixCache:
    """Results of every operation of one noise-free forward pass, to be taken up at any site.

    The hooks of the model stay in charge: a cached operation returns what it returned before, then its hooks (rounding,
    noise) act as always.

    Args:
        model: in evaluation mode, its noise switched off.
        x: one batch.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model, self.x = model, x
        self._results: list[Any] = []
        self._at: dict[Key, int] = {}
        self.clean = self._run(self._record)
        self._versions = [_version(r) for r in self._results]
        # An operation in place changes what an earlier one returned.
        self._reusable = self._versions == self._seen

    def outputs(self, site: Key) -> Tensor:
        """What the model returns now, given that nothing differs before this site."""
        cut = self._at.get(site)
        if cut is None or not self._reusable:
            with torch.no_grad():
                return self.model(self.x)
        position = 0

        def take(_: Any, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            nonlocal position
            if position > cut:
                return func(*args, **kwargs)
            position += 1
            return self._results[position - 1]

        out = self._run(take)
        if [_version(r) for r in self._results] != self._versions:
            self._reusable = False  # this pass wrote into the cache: its result still stands, the cache does not
        return out

    def _run(self, handler: Callable[..., Any]) -> Tensor:
        self._seen: list[int] = getattr(self, "_seen", [])
        with torch.no_grad(), CallSites(self.model, handler):
            return self.model(self.x)

    def _record(self, site: Any, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        self._at.setdefault((site.name, site.call), len(self._results))
        self._results.append(result)
        self._seen.append(_version(result))
        return result


def _version(result: Any) -> int:
    first = result[0] if isinstance(result, tuple | list) and result else result
    return first._version if isinstance(first, Tensor) else 0
