"""Names for every tensor operation of a forward pass, the same in eager execution and in an exported graph.

A module cannot tell `F.relu(x + y)` apart from the layer it stands in, yet costs, noise, precision and saved
activations are all decided per operation. One `TorchFunctionMode` sees each torch call while the model runs; global
module hooks tell which module makes it. The name is therefore found by running the model, not by reading its code:
functional operations, residual adds and modules called several times need no special case, and `torch.export`
(which runs the model too) yields the same names because the mode annotates every graph node it causes.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

__all__ = ["CallSite", "CallSites", "canonical", "module_names"]

# Torch functions that are the same operation under several names.
_SAME = {
    "add": ("iadd", "radd"),
    "sub": ("isub", "rsub"),
    "mul": ("imul", "rmul", "multiply"),
    "div": ("truediv", "itruediv", "rtruediv", "rdiv"),
    "cat": ("concat", "concatenate"),
    "matmul": ("mm", "bmm", "imatmul", "rmatmul"),
    "attention": ("scaled_dot_product_attention", "multi_head_attention_forward"),
    "reshape": ("view", "unflatten"),
    "transpose": ("permute", "t", "swapaxes"),
    "relu6": ("hardtanh",),
    "clip": ("clamp",),
    "slice": ("getitem", "select"),
    "max_pool1d": ("max_pool1d_with_indices",),
    "max_pool2d": ("max_pool2d_with_indices",),
}
_ALIASES = {alias: kind for kind, aliases in _SAME.items() for alias in aliases}
# Calls that ask a question or move data about without being an operator of the network.
_NOT_OPERATORS = frozenset(
    (
        "get", "set", "dim", "size", "stride", "shape", "numel", "len", "is_floating_point", "is_complex",
        "data_ptr", "requires_grad_", "detach", "contiguous", "to", "float", "double", "half", "bfloat16",
        "type", "cpu", "item", "tolist", "is_contiguous", "element_size", "storage_offset", "ones", "zeros",
        "empty", "full", "arange", "tensor", "as_tensor", "zeros_like", "ones_like", "empty_like", "rand",
        "randn", "rand_like", "randn_like", "has_torch_function", "bool", "int", "format", "repr", "hash",
        "eq", "ne", "lt", "le", "gt", "ge", "setitem", "ndimension", "copy", "clone", "new_zeros", "new_ones",
        "new_empty", "new_full", "is_tensor", "index", "broadcast_shapes", "result_type", "can_cast",
        "is_same_size", "dtype", "device",
    )
)  # fmt: skip


class CallSite(NamedTuple):
    """One operation of a forward pass: where it stands, which call of that place, what it does."""

    name: str
    call: int
    kind: str


# What a layer may do around its own operation (padding modes, head splits, BatchNorm's batch counter in training):
# never takes the layer's own name.
_AROUND = frozenset({"add", "pad", "transpose", "reshape", "flatten", "slice", "unsqueeze", "squeeze", "expand"})

Handler = Callable[[CallSite, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def canonical(name: str) -> str:
    """Kind behind a torch function's name: ``"__iadd__"`` and ``"add_"`` are ``"add"``."""
    name = name.strip("_").lower()
    return _ALIASES.get(name, name)


def kind_of(func: Callable[..., Any]) -> str | None:
    """Kind of a torch function, None for what is no operator of a network."""
    name = getattr(func, "__name__", "").strip("_").lower()
    return None if not name or name in _NOT_OPERATORS else canonical(name)


def is_layer(module: nn.Module) -> bool:
    """Whether a module is one layer of torch.nn (or a subclass), so that its path alone names its operation."""
    own = any(c.__module__.startswith("torch.nn.modules") and c is not nn.Module for c in type(module).__mro__)
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    return own and not isinstance(module, containers) and next(module.children(), None) is None


def module_names(model: nn.Module) -> dict[int, tuple[str, bool]]:
    """Map a module's `identity` to its path and whether it is one layer; the first path wins for shared modules."""
    return {identity(module): (name, is_layer(module)) for name, module in model.named_modules()}


def identity(module: nn.Module) -> int:
    """What stays when torch.export runs a stand-in, which wraps a module anew around the same attributes."""
    return id(vars(module))


class _Scope:
    """One running call of a module."""

    def __init__(self, name: str, call: int, layer: bool) -> None:
        self.name, self.call = name, call
        self.seen: Counter[str] = Counter()
        self.named = not layer

    def site(self, kind: str) -> CallSite:
        if not self.named and kind not in _AROUND:
            self.named = True
            return CallSite(self.name, self.call, kind)
        n = self.seen[kind]
        self.seen[kind] += 1
        own = kind if n == 0 else f"{kind}_{n}"
        return CallSite(f"{self.name}.{own}" if self.name else own, self.call, kind)


class CallSites(TorchFunctionMode):
    """Context in which every operation of `model` passes through `handler(site, func, args, kwargs)`.

    The handler must return the operation's result, normally ``func(*args, **kwargs)``. Operations made outside a
    call of `model` go through untouched.

    Args:
        model: the network whose calls are named.
        handler: sees each operation; may change its arguments or its result.

    Example:
        >>> import torch
        >>> model, names = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), []
        >>> with CallSites(model, lambda site, f, args, kw: (names.append(site[:2]), f(*args, **kw))[1]):
        ...     _ = model(torch.ones(2, 4))
        >>> names
        [('0', 0), ('1', 0)]
    """

    def __init__(self, model: nn.Module, handler: Handler) -> None:
        super().__init__()
        self._names = module_names(model)
        self._handler = handler
        self._calls: Counter[str] = Counter()
        self._scopes: list[_Scope] = []
        self._removers: list[Any] = []

    def __enter__(self) -> "CallSites":
        self._removers = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        for handle in self._removers:
            handle.remove()
        self._scopes.clear()
        self._calls.clear()

    def open_root(self, name: str = "") -> None:
        """Say that the model itself is already running (its own pre-hook opened this context)."""
        self._scopes.append(_Scope(name, 0, False))

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        known = self._names.get(identity(module))
        if known is None:
            return
        name, layer = known
        if not self._scopes:
            self._calls.clear()  # a new forward pass of the whole model
        self._scopes.append(_Scope(name, self._calls[name], layer))
        self._calls[name] += 1

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if identity(module) in self._names and self._scopes:
            self._scopes.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func) if self._scopes else None
        if kind is None:
            return func(*args, **kwargs)
        return self._handler(self._scopes[-1].site(kind), func, args, kwargs)
