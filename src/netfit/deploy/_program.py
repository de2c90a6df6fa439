"""Batch norm folded inside an exported program: by the graph, so module names and shared modules do not matter.

Folding happens on the program and not on the network, because the program says what is followed *only* by a batch
norm. The program's tensors are replaced, never written to: the network it came from keeps its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

_LINEAR = {"aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::linear"}


def fold_batch_norm(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Fold every batch norm that directly follows a convolution or linear layer into that layer's weight and bias.

    A weight used by several calls is folded when every call is followed by the same batch norm. Anything else
    (a batch norm before an activation of its own, a transposed convolution) stays as it is.

    Args:
        program: an exported network in eval mode; changed in place.

    Returns:
        For each folded weight, by parameter name, the factor its output channels were multiplied with:
        float32 of shape (out_channels,).
    """
    names = _parameter_names(program)
    factors = {}
    for weight in [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]:
        pairs = _pairs(weight)
        if pairs:
            factors[names[weight.name]] = _fold(program, names, weight, pairs)
    program.graph_module.recompile()
    return factors


def _parameter_names(program: ExportedProgram) -> dict[str, str]:
    """Placeholder name -> name in the state dict."""
    signature = program.graph_signature
    return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}


def _is(node: Any, names: set[str]) -> bool:
    schema = getattr(getattr(node, "target", None), "_schema", None)
    return schema is not None and schema.name in names


def _pairs(weight: Node) -> list[tuple[Node, Node]]:
    """(layer, batch norm) for every use of `weight`, or nothing when one of them cannot be folded."""
    pairs = []
    for layer in weight.users:
        norm = next(iter(layer.users), None)
        if not (_is(layer, _LINEAR) and layer.args[1] is weight and len(layer.users) == 1):
            return []
        if not (_is(norm, {"aten::batch_norm"}) and norm is not None and norm.args[0] is layer):
            return []
        # batch_norm normalises axis 1, which is the output axis of a linear layer only for matrices.
        if norm.args[5] or (_is(layer, {"aten::linear"}) and layer.meta["val"].ndim != 2):
            return []
        pairs.append((layer, norm))
    norms = {norm for _, norm in pairs}
    if len({norm.args[1:5] for norm in norms}) != 1:
        return []
    statistics = [a for a in next(iter(norms)).args[1:5] if isinstance(a, Node)]
    private = all(a.op == "placeholder" and set(a.users) <= norms for a in statistics)
    bias = _bias(pairs[0][0])
    layers = {layer for layer, _ in pairs}
    same_bias = all(_bias(layer) is bias for layer in layers) and (bias is None or set(bias.users) <= layers)
    return pairs if private and same_bias and len(statistics) >= 2 else []


def _bias(layer: Node) -> Node | None:
    bias = layer.args[2] if len(layer.args) > 2 else layer.kwargs.get("bias")
    return bias if isinstance(bias, Node) else None


def _fold(
    program: ExportedProgram, names: dict[str, str], weight: Node, pairs: Sequence[tuple[Node, Node]]
) -> torch.Tensor:
    state = program.state_dict
    norm = pairs[0][1]

    def value(node: Any, default: float) -> torch.Tensor:
        return state[names[node.name]].detach() if isinstance(node, Node) else torch.full_like(mean, default)

    gamma, beta, mean_node, variance = norm.args[1:5]
    assert isinstance(mean_node, Node)
    mean = state[names[mean_node.name]].detach()
    factor = value(gamma, 1.0) * torch.rsqrt(value(variance, 1.0) + float(norm.args[7]))  # type: ignore[arg-type]
    old_bias = _bias(pairs[0][0])
    bias = (value(old_bias, 0.0) - mean) * factor + value(beta, 0.0)
    name = names[weight.name]
    folded = state[name].detach()
    state[name] = torch.nn.Parameter(folded * factor.reshape(-1, *[1] * (folded.ndim - 1)), requires_grad=False)
    # A layer without a bias takes over the placeholder of the mean, which nothing else reads any more.
    slot = old_bias or mean_node
    bias_name = name.removesuffix("weight") + "bias" if old_bias is None else names[old_bias.name]
    _retarget(program, slot, bias_name)
    state[bias_name] = torch.nn.Parameter(bias, requires_grad=False)
    for layer, its_norm in pairs:
        layer.args = (layer.args[0], weight, slot, *layer.args[3:])
        layer.kwargs = {k: v for k, v in layer.kwargs.items() if k != "bias"}
        # The tensor that leaves the folded layer is the one the batch norm made: it keeps that name.
        layer.meta["custom"] = {**layer.meta.get("custom", {}), "value": its_norm.name}
        its_norm.replace_all_uses_with(layer)
        program.graph.erase_node(its_norm)
    return factor


def _retarget(program: ExportedProgram, placeholder: Node, name: str) -> None:
    for spec in program.graph_signature.input_specs:
        if getattr(spec.arg, "name", None) == placeholder.name:
            spec.target = name
            spec.kind = torch.export.graph_signature.InputKind.PARAMETER
            spec.persistent = None
