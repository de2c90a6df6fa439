"""Read torch-pruning's dependency graph into channel groups.

torch-pruning answers "what goes along when these outputs of this layer go". The answers for all layers are united
here channel by channel, so that layers which meet only through a chain of concatenations end in one group too.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_flatten, tree_unflatten

from netfit.compress._axes import Side
from netfit.errors import UnsupportedLayerError

_RECURRENT = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)
Key = tuple[str, Side]
"""One side of a layer, or ("name of a parameter", "out") for a bare nn.Parameter."""
Note = tuple[tuple[Key, int], set[str], str | None]
"""About the group of an element: operators it runs through, why it must be frozen."""


class _Static(dict[Any, Any]):
    """torch-pruning's node table after building.

    ``get_pruning_group`` recomputes the index maps of all nodes by walking ``items()``, on every call. Nothing is
    ever pruned on this graph, so the maps of the build stay valid and the walk would only make planning quadratic.
    """

    def items(self) -> Any:
        return ()


class _Bounded(list[Any]):
    """Dependencies of a node, which may be walked only so often: torch-pruning can go in circles for ever."""

    def __init__(self, items: list[Any], budget: list[int]) -> None:
        super().__init__(items)
        self._budget = budget

    def __iter__(self) -> Iterator[Any]:
        self._budget[0] -= 1
        if self._budget[0] < 0:
            raise RuntimeError("its channels come back to it in another order")
        return super().__iter__()


class _Opaque(torch.autograd.Function):
    """Outputs of a recurrent layer as one operation on its input, without the steps inside."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(y.clone() for y in outputs)


@dataclass
class Coupling:
    """One group as found, before it is checked: elements of layers by channel."""

    positions: dict[Key, list[tuple[int, int]]]  # side of a layer -> (channel, position along the layer's axis)
    size: int
    operators: set[str] = field(default_factory=set)  # what the channels run through besides layers
    frozen: str | None = None


class _Union:
    """Disjoint sets of hashable items."""

    def __init__(self) -> None:
        self.parent: dict[Any, Any] = {}

    def find(self, item: Any) -> Any:
        parent = self.parent
        root = parent.setdefault(item, item)
        while parent[root] != root:
            root = parent[root]
        while parent[item] != root:
            parent[item], item = root, parent[item]
        return root

    def join(self, a: Any, b: Any) -> None:
        self.parent[self.find(b)] = self.find(a)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def find_couplings(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[list[Coupling], dict[str, int]]:
    """Couplings of a network, and the channel axis of every bare parameter; the model must be in evaluation mode.

    Raises:
        UnsupportedLayerError: tracing fails.
    """
    with _silence(), _steps_hidden(model):
        import torch_pruning

        recurrent = dict.fromkeys(_RECURRENT, torch_pruning.pruner.function.LSTMPruner())
        try:
            with torch.enable_grad():
                graph = torch_pruning.DependencyGraph().build_dependency(
                    model, inputs, customized_pruners=recurrent, verbose=False
                )
        except Exception as e:
            what = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no message'}"
            raise UnsupportedLayerError(f"cannot find the channel groups of {type(model).__name__}: {what}") from e
        budget = [0]
        for node in graph.module2node.values():
            node.dependencies = _Bounded(node.dependencies, budget)
        graph.module2node = _Static(graph.module2node)
        bare = {id(p): n for n, p in model.named_parameters()}
        dims = {bare[id(p)]: int(dim) % p.ndim for p, dim in graph.unwrapped_parameters}
        return _unite(graph, model, budget), dims


@contextlib.contextmanager
def _steps_hidden(model: nn.Module) -> Iterator[None]:
    """Recurrent layers as single operations: torch-pruning loses its way among their steps."""
    hidden = [m for m in model.modules() if isinstance(m, _RECURRENT)]
    for module in hidden:
        module.forward = functools.partial(_one_operation, module.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in hidden:
            del module.forward  # the class's own shows again


def _one_operation(steps: Any, x: Any, *state: Any, **kwargs: Any) -> Any:
    if not isinstance(x, torch.Tensor):  # a PackedSequence
        return steps(x, *state, **kwargs)
    with torch.no_grad():
        leaves, spec = tree_flatten(steps(x, *state, **kwargs))
    return tree_unflatten(_Opaque.apply(x, *leaves), spec)


def _unite(graph: Any, model: nn.Module, budget: list[int]) -> list[Coupling]:
    names: dict[int, str] = {id(m): n for n, m in model.named_modules()}
    names |= {id(p): n for n, p in model.named_parameters()}
    channels, layers = _Union(), _Union()  # elements of one channel; channels of one group
    notes: list[Note] = []
    for name, module in model.named_modules():
        if not isinstance(module, _ConvNd | nn.Linear) or module not in graph.module2node:
            continue
        pruner = graph.get_pruner_of_module(module)
        size = pruner.get_out_channels(module)
        root: Key = (name, "out")
        if all((root, i) in channels.parent for i in range(size)):
            continue  # an earlier group holds all of it
        for i in range(size):
            channels.find((root, i))
        budget[0] = 100 + 10 * len(graph.module2node)
        try:
            items = list(graph.get_pruning_group(module, pruner.prune_out_channels, range(size)))
        except Exception as e:
            notes.append(((root, 0), set(), f"torch-pruning cannot follow its channels ({e})"))
            continue
        notes.append(((root, 0), *_join(graph, items, root, names, channels)))
    return _collect(channels, layers, notes, model)


def _join(
    graph: Any, items: list[Any], root: Key, names: dict[int, str], channels: _Union
) -> tuple[set[str], str | None]:
    """Unite the elements of one answer; what it runs through, and why it must be frozen."""
    operators, frozen = set[str](), None
    for item in items:
        node = item.dep.target
        side: Side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        if side == "out" and not node.outputs:  # nothing consumes it but the caller
            frozen = "network output"
        if id(node.module) not in names:
            operators.add(type(node.module).__name__.strip("_").removesuffix("Op").lower())
            continue
        for local, origin in zip(item.idxs, item.root_idxs, strict=True):
            channels.join((root, origin), ((names[id(node.module)], side), local))
    return operators, frozen


def _collect(channels: _Union, layers: _Union, notes: list[Note], model: nn.Module) -> list[Coupling]:
    roots: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd | nn.Linear):
            roots[name] = len(roots)
    elements = sorted(channels.parent, key=lambda e: e[1])
    first: dict[Key, Any] = {}
    for key, local in elements:  # all outputs of one layer are one group
        if key[1] == "out" and key[0] in roots:
            layers.join(first.setdefault(key, channels.find((key, local))), channels.find((key, local)))
    grouped: dict[Any, dict[Key, list[tuple[Any, int]]]] = {}
    for key, local in elements:
        channel = channels.find((key, local))
        grouped.setdefault(layers.find(channel), {}).setdefault(key, []).append((channel, local))
    found = {}
    for group, positions in grouped.items():
        # Channels are numbered along the layer that has most of them, then the next.
        outputs = [key for key in positions if key[1] == "out" and key[0] in roots]
        widest = sorted(outputs, key=lambda key: (-len(positions[key]), roots[key[0]]))
        order: dict[Any, int] = {}
        for key in widest:
            for channel, _ in positions[key]:
                order.setdefault(channel, len(order))
        numbered = {k: sorted((order[c], p) for c, p in pairs) for k, pairs in positions.items()}
        found[group] = Coupling(numbered, len(order))
    for element, operators, frozen in notes:
        coupling = found[layers.find(channels.find(element))]
        coupling.operators |= operators
        coupling.frozen = coupling.frozen or frozen
    return list(found.values())
