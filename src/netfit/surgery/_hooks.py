"""Hooks at call sites: change what one operation of a network reads or returns, and nothing else.

The model keeps its class, its modules and its state_dict keys. One child module, ``netfit_hooks``, holds the hooks (and
their own state, such as the scales of quantizers); it opens a `CallSites` context whenever the model is called.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from netfit.workload import CallSites

__all__ = ["CallHook", "Hooks", "hooks_of", "install", "plain"]

CHILD = "netfit_hooks"
SiteKey = tuple[str, int | None]


class CallHook(nn.Module):
    """Acts on one operation; override `before`, `around`, `after` or several of them."""

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments the operation gets instead of `args` and `kwargs`."""
        return args, kwargs

    def around(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the operation; for what must hold while it runs, even when it raises."""
        return func(*args, **kwargs)

    def after(self, result: Any) -> Any:
        """Result the network sees instead of the operation's own."""
        return result


class Hooks(nn.Module):
    """All call-site hooks of one model, in the order they were installed."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.ModuleDict()
        self._mode: CallSites | None = None
        self._found: dict[tuple[str, int], list[CallHook]] = {}  # every operation of every pass asks

    def forward(self, x: Any) -> Any:
        """Hand the input on: a sequential container runs every child it has."""
        return x

    def add(self, key: SiteKey, hook: CallHook) -> None:
        """Install one hook; ``call`` None means every call of that place."""
        name = _encode(key)
        if name not in self.at:
            self.at[name] = nn.ModuleList()
        cast(nn.ModuleList, self.at[name]).append(hook)
        self._found.clear()

    def find(self, name: str, call: int) -> list[CallHook]:
        """Hooks that act on one operation."""
        found = self._found.get((name, call))
        if found is None:
            keys = (_encode((name, None)), _encode((name, call)))
            found = [cast(CallHook, h) for k in keys if k in self.at for h in cast(nn.ModuleList, self.at[k])]
            self._found[name, call] = found
        return found

    def _handle(self, site: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hooks = self.find(site.name, site.call)
        for hook in hooks:
            args, kwargs = hook.before(args, kwargs)
        call = func
        for hook in hooks:
            if type(hook).around is not CallHook.around:
                call = partial(_around, hook, call)
        result = call(*args, **kwargs)
        for hook in hooks:
            result = hook.after(result)
        return result

    def _enter(self, model: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        changed = list(args)
        for i in range(len(args)):
            for hook in self.find("input", i):
                changed[i] = hook.after(changed[i])
        self._mode = CallSites(model, self._handle)
        self._mode.__enter__()
        self._mode.open_root()
        return tuple(changed)

    def _leave(self, model: nn.Module, args: Any, result: Any) -> None:
        if self._mode is not None:  # also reached when the forward pass raised
            self._mode.__exit__(None, None, None)
            self._mode = None


def _around(hook: CallHook, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return hook.around(func, args, kwargs)


def _encode(key: SiteKey) -> str:
    name, call = key
    return f"{name.replace('.', '/')}#{'*' if call is None else call}"  # ModuleDict keys may hold no dot


def install(model: nn.Module, hooks: Mapping[SiteKey, CallHook | Iterable[CallHook]]) -> Hooks:
    """Add hooks to a model, in place; those it already has stay and act first."""
    host = hooks_of(model)
    if host is None:
        host = Hooks()
        model.add_module(CHILD, host)
        model.register_forward_pre_hook(host._enter)
        model.register_forward_hook(host._leave, always_call=True)
    for key, given in hooks.items():
        for hook in [given] if isinstance(given, CallHook) else given:
            host.add(key, hook)
    return host


def hooks_of(model: nn.Module) -> Hooks | None:
    """The hooks of a model, None when it has none."""
    host = getattr(model, CHILD, None)
    return host if isinstance(host, Hooks) else None


def plain(model: nn.Module) -> nn.Module:
    """Copy of a model without its call-site hooks: the same weights, nothing simulated."""
    new = copy.deepcopy(model)
    host = hooks_of(new)
    if host is None:
        return new
    for table in (new._forward_pre_hooks, new._forward_hooks):
        for key in [k for k, f in table.items() if getattr(f, "__self__", None) is host]:
            del table[key]
            new._forward_hooks_always_called.pop(key, None)
    delattr(new, CHILD)
    return new


def first_tensor(x: Any, change: Any) -> Any:
    """Apply `change` to a tensor, or to the first tensor of a tuple result (an LSTM's output)."""
    if isinstance(x, torch.Tensor):
        return change(x)
    if isinstance(x, tuple) and x and isinstance(x[0], torch.Tensor):
        return (change(x[0]), *x[1:])
    return x
