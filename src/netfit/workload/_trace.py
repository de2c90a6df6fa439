"""Trace a torch model into a `Workload` through `torch.export`.

The exported graph gives shapes and edges; `CallSites` gives every node its call site, so the names are those that
policies, noise and measurements use on the live model.
"""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import fx, nn

from netfit.env import quiet
from netfit.errors import ConfigError, UnsupportedLayerError

from ._callsites import CallSite, CallSites, canonical
from ._types import Op, TensorSpec, Workload

__all__ = ["export_program", "from_program", "trace"]

_SITE = "netfit_site"
# Names only the exported graph knows; all others are those of `CallSites`.
_SAME = {
    "attention": ("_scaled_dot_product_flash_attention_for_cpu",),
    "matmul": ("addmm", "baddbmm"),
    "reshape": ("_unsafe_view",),
    "transpose": ("numpy_T",),
    "layer_norm": ("native_layer_norm",),
    "softmax": ("_softmax",),
    "rnn": ("rnn_tanh", "rnn_relu"),
    "split": ("split_with_sizes",),
    "identity": ("contiguous", "clone", "alias", "detach", "_to_copy"),
}
_ALIASES = {alias: kind for kind, aliases in _SAME.items() for alias in aliases}
_ROLES = ("weight", "bias", "running_mean", "running_var")
_IGNORED = ("_assert", "sym_", "lift_fresh", "zeros", "ones", "full", "arange", "scalar_tensor", "empty")


def trace(model: nn.Module, *example_inputs: torch.Tensor) -> Workload:
    """List the operators of a model with shapes, weights, MACs and edges.

    The model is run once, in evaluation mode, with the example inputs; its training flag and weights are untouched.

    Args:
        model: any module that `torch.export` can export.
        example_inputs: tensors of the shapes the model will see, batch dimension included.

    Raises:
        ConfigError: the model does not run on these inputs.
        UnsupportedLayerError: it runs but cannot be exported; the message names the place.

    Example:
        >>> workload = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.ones(2, 4))
        >>> [(op.name, op.kind, op.macs) for op in workload]
        [('0', 'linear', 24), ('1', 'relu', 0)]
    """
    return from_program(export_program(model, *example_inputs))


def export_program(
    model: nn.Module, *example_inputs: torch.Tensor, dynamic_batch: bool = False
) -> torch.export.ExportedProgram:
    """Export a model in evaluation mode with every node annotated by its call site.

    Args:
        model: the module; returned to its training flag afterwards.
        example_inputs: tensors the model is run with.
        dynamic_batch: leave dimension 0 of every input open.

    Raises:
        ConfigError, UnsupportedLayerError: as for `trace`.
    """
    _check_runs(model, example_inputs)
    shapes = tuple({0: torch.export.Dim("batch")} for _ in example_inputs) if dynamic_batch else None
    sites = CallSites(model, _annotate)
    with _evaluation(model), quiet("torch.export"), torch.no_grad(), torch.fx.traceback.preserve_node_meta(), sites:
        try:
            return torch.export.export(model, example_inputs, dynamic_shapes=shapes, strict=False)
        except Exception as e:  # torch.export raises many unrelated types for "this cannot be exported"
            reason = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
            raise UnsupportedLayerError(
                f"{type(model).__name__} cannot be exported: {reason.strip()[:300]} "
                "(data-dependent Python control flow must become torch.where or torch.cond)"
            ) from e


def _annotate(site: CallSite, func: Any, args: Any, kwargs: Any) -> Any:
    with torch.fx.traceback.annotate({_SITE: tuple(site)}):
        return func(*args, **kwargs)


def _check_runs(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> None:
    if not example_inputs:
        raise ConfigError(f"{type(model).__name__} needs example inputs, got none: pass a tensor like a real batch")
    with _evaluation(model), torch.no_grad():
        try:
            model(*example_inputs)
        except Exception as e:  # the user's own forward may raise anything
            shapes = ", ".join(str(tuple(getattr(x, "shape", ()))) for x in example_inputs)
            raise ConfigError(
                f"{type(model).__name__} does not run on inputs of shape {shapes}: {str(e).splitlines()[0][:200]}"
                if str(e)
                else f"{type(model).__name__} does not run on inputs of shape {shapes}: {type(e).__name__}"
            ) from e


@contextmanager
def _evaluation(model: nn.Module) -> Any:
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def from_program(program: torch.export.ExportedProgram) -> Workload:
    """Read a `Workload` off an exported program; tensor names are the names of its graph nodes."""
    signature = program.graph_signature
    stored = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    builder = _Builder(stored)
    for node in program.graph.nodes:
        builder.add(node)
    users = [n for n in program.graph.nodes if n.op == "placeholder" and n.name not in stored]
    inputs = [_spec(n.name, n.meta.get("val")) for n in users if isinstance(n.meta.get("val"), torch.Tensor)]
    outputs = [builder.name_of(n) for n in _output_nodes(program, signature)]
    return Workload(_named(builder.found), inputs, outputs)


def _output_nodes(program: torch.export.ExportedProgram, signature: Any) -> list[fx.Node]:
    returned = next(n for n in program.graph.nodes if n.op == "output").args[0]
    keep = set(signature.user_outputs)
    return [n for n in returned if isinstance(n, fx.Node) and n.name in keep]


class _Builder:
    """Turns graph nodes into operators, keeping track of weights, tuples and in-place results."""

    def __init__(self, stored: Mapping[str, str]) -> None:
        self.stored = dict(stored)
        self.latest: dict[fx.Node, fx.Node] = {}  # tensor -> the in-place operation that wrote it last
        self.weights: dict[fx.Node, str] = {}  # views and casts of weights -> state_dict key
        self.found: list[tuple[fx.Node, Op]] = []

    def name_of(self, node: fx.Node) -> str:
        while node in self.latest:
            node = self.latest[node]
        return node.name

    def _weight_key(self, node: fx.Node) -> str | None:
        """State_dict key behind a node: a parameter, or a view or cast of one."""
        if node.name in self.stored:
            return self.stored[node.name]
        return self.weights.get(node)

    def add(self, node: fx.Node) -> None:
        if node.op != "call_function" or "getitem" in str(node.target):
            return
        kind = _kind(node)
        if kind is None:
            return
        tensors = [a for a in _tensors(chain(node.args, node.kwargs.values()))]
        keys = [self._weight_key(a) for a in tensors]
        if tensors and all(keys):
            self.weights[node] = str(keys[0])  # arithmetic on weights alone runs once, not per input
            return
        params = {role: _spec(str(key), a.meta.get("val")) for role, key, a in _with_roles(kind, tensors, keys)}
        inputs = tuple(_spec(self.name_of(a), a.meta.get("val")) for a, k in zip(tensors, keys, strict=True) if not k)
        outputs = _outputs(node)
        if not outputs:
            return
        attrs = _attrs(node, kind)
        op = Op("", 0, kind, inputs, outputs, params, attrs)
        macs = sum(g.macs for g in op.gemms())
        self.found.append((node, Op("", 0, kind, inputs, outputs, params, attrs, macs)))
        if str(getattr(node.target, "_schema", "")).split("(")[0].split(".")[0].endswith("_") and tensors:
            self.latest[tensors[0]] = node


def _kind(node: fx.Node) -> str | None:
    packet = getattr(node.target, "overloadpacket", None)
    raw = str(packet if packet is not None else getattr(node.target, "__name__", node.target)).split(".")[-1]
    if raw.startswith(_IGNORED):
        return None
    return _ALIASES.get(raw) or canonical(raw)


def _tensors(args: Iterable[Any]) -> list[fx.Node]:
    found: list[fx.Node] = []
    for a in args:
        if isinstance(a, fx.Node):
            if isinstance(a.meta.get("val"), torch.Tensor):
                found.append(a)
        elif isinstance(a, list | tuple):
            found += _tensors(a)
    return found


def _with_roles(kind: str, tensors: list[fx.Node], keys: list[str | None]) -> list[tuple[str, str, fx.Node]]:
    """Name each weight by the last part of its state_dict key, or by its place where that says nothing."""
    named: list[tuple[str, str, fx.Node]] = []
    used: set[str] = set()
    places = iter(_ROLES)
    for key, a in zip(keys, tensors, strict=True):
        if key is None:
            continue
        own = key.rpartition(".")[2]
        place = next(places, own)
        role = own if kind in ("lstm", "gru", "rnn") else place if kind.startswith(("conv", "linear")) else own
        role = role if role not in used else f"{role}_{len(used)}"
        used.add(role)
        named.append((role, key, a))
    return named


def _outputs(node: fx.Node) -> tuple[TensorSpec, ...]:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return (_spec(node.name, value),)
    if isinstance(value, list | tuple):
        items = {u.args[1]: u.name for u in node.users if "getitem" in str(u.target)}
        return tuple(
            _spec(items.get(i, f"{node.name}.{i}"), v) for i, v in enumerate(value) if isinstance(v, torch.Tensor)
        )
    return ()


def _spec(name: str, value: Any) -> TensorSpec:
    shape = tuple(int(s) if isinstance(s, int) else _hint(s) for s in value.shape)
    return TensorSpec(name, shape, str(value.dtype).removeprefix("torch."))


def _hint(size: Any) -> int:
    return int(size.node.hint)  # the example's own size of an open batch dimension


def _attrs(node: fx.Node, kind: str) -> dict[str, Any]:
    """Arguments that are plain values, by the names of the operator's schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    attrs: dict[str, Any] = {}
    for i, arg in enumerate(schema.arguments):
        value = node.args[i] if i < len(node.args) else node.kwargs.get(arg.name, arg.default_value)
        if isinstance(value, bool | int | float | str):
            attrs[arg.name] = value
        elif isinstance(value, list | tuple) and value and all(isinstance(v, bool | int | float) for v in value):
            attrs[arg.name] = list(value)
    return attrs


def _named(found: list[tuple[fx.Node, Op]]) -> list[Op]:
    """Give each operator its call site's name; the node that does what was called bears it, helpers a suffix."""
    by_site: dict[Any, list[int]] = {}
    for i, (node, _) in enumerate(found):
        by_site.setdefault(_site(node), []).append(i)
    names: dict[int, tuple[str, int]] = {}
    for (name, call, kind), members in by_site.items():
        main = max(members, key=lambda i: (found[i][1].kind == kind, found[i][1].macs, found[i][1].outputs[0].numel))
        for i in members:
            own = (name, call) if i == main else (f"{name}:{found[i][0].name}", call)
            names[i] = own
    return [
        Op(*names[i], op.kind, op.inputs, op.outputs, op.params, op.attrs, op.macs) for i, (_, op) in enumerate(found)
    ]


def _site(node: fx.Node) -> tuple[str, int, str]:
    custom = (node.meta.get("custom") or {}).get(_SITE)
    if custom is not None:
        return tuple(custom)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return f"{path}:{node.name}".lstrip(":"), 0, ""
