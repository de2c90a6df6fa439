"""In which order the rows of a layer are added up: a mapping-time choice that needs no retraining.

Neighbouring rows are often alike (pixels of one image row, coefficients of one sound frame), so a sum first runs far
to one side and back. A good order keeps every partial sum close to its share of the total; choosing the next row
greedily by that rule is herding, "Herding dynamical weights to learn" (Welling, 2009).
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean
from netfit.seeding import derive

from ._mac import MACHook

__all__ = ["balanced_order", "mac_layers", "order_rows"]

METHODS = ("balanced", "random", "natural")
ROWS = 1024  # of inputs (patches, for a convolution) of one batch that a balanced order looks at, at most


def mac_layers(model: nn.Module) -> dict[str, MACHook]:
    """The layers of a model that run on a saturating array, by name.

    Raises:
        ConfigError: there are none, or they were not calibrated yet.
    """
    found = {m.site: m for m in model.modules() if isinstance(m, MACHook)}
    if not found:
        raise ConfigError(
            f"no layer of {type(model).__name__} is on an array: apply a policy with saturating_mac first"
        )
    waiting = [name for name, hook in found.items() if hook.digital]
    if waiting:
        raise ConfigError(f"layer {waiting[0]!r} waits for its ranges: run netfit.surgery.calibrate on the model first")
    return found


def order_rows(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, ...]] = (),
    method: Literal["balanced", "random", "natural"] | Mapping[str, Tensor] = "balanced",
    seed: int = 0,
) -> dict[str, Tensor]:
    """Set, in place, the order in which the rows of every layer on a saturating array are added up.

    Weights and outputs of the network stay what they are; only the assignment of rows changes.

    Args:
        model: calibrated result of `apply` with `SaturatingMAC`.
        batches: some inputs, for "balanced"; a hundred samples do. A tuple holds several arguments of one call.
        method: "balanced" keeps partial sums near their share of the total; "random"; "natural" as the rows stand;
            or orders int64 (k,) or (groups, k) by layer name, other layers keeping theirs.
        seed: of the random orders.

    Returns:
        The order of each layer, int64 (groups, k); k counts the inputs of one output.

    Raises:
        ConfigError: nothing is on an array or calibrated, the method is unknown, there is no data for "balanced", or
            a given order is no permutation.

    Example:
        >>> from netfit.analog.mac import SaturatingMAC
        >>> from netfit.surgery import Policy, apply, calibrate
        >>> net, x = nn.Sequential(nn.Linear(6, 2)), torch.rand(32, 6)
        >>> analog = apply(net, Policy({"*": SaturatingMAC()}), x)
        >>> calibrate(analog, [x])
        >>> sorted(order_rows(analog, [x])["0"][0].tolist())
        [0, 1, 2, 3, 4, 5]
    """
    layers = mac_layers(model)
    if isinstance(method, Mapping):
        orders = {name: _given(layers, name, order) for name, order in method.items()}
    elif method == "balanced":
        orders = _balanced(model, layers, batches)
    elif method == "random":
        orders = {name: _random(hook, derive(seed, name)) for name, hook in layers.items()}
    elif method == "natural":
        orders = {name: torch.arange(hook.sizes[1]).repeat(hook.sizes[0], 1) for name, hook in layers.items()}
    else:
        raise ConfigError(f"unknown order {method!r}: {did_you_mean(str(method), METHODS)}")
    for name, order in orders.items():
        layers[name].order = order.to(layers[name].column_gain.device)
    return orders


def balanced_order(gram: Tensor) -> Tensor:
    """Order vectors so that every partial sum is near its share of their total.

    Args:
        gram: (k, k), inner products of the vectors; all that the choice depends on.

    Returns:
        int64 (k,).

    Example:
        >>> steps = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
        >>> steps[balanced_order(steps @ steps.T)].flatten().cumsum(0)
        tensor([1., 0., 1., 0.])
    """
    k = len(gram)
    total, own, reached = gram.sum(1), gram.diagonal().clone(), torch.zeros_like(gram[0])
    order = torch.empty(k, dtype=torch.int64)
    for m in range(k):
        # |prefix + a - (m + 1) / k * total|^2 without what is the same for every candidate a.
        best = int((own + 2 * (reached - (m + 1) / k * total)).argmin())
        order[m] = best
        reached += gram[best]
        own[best] = torch.inf
    return order


def _balanced(
    model: nn.Module, layers: Mapping[str, MACHook], batches: Iterable[Tensor | tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    grams: dict[str, Tensor] = {}

    def listener(name: str, x: Tensor, w: Tensor) -> None:
        # Row k adds x[b, k] * w[k, n] to the sums (b, n): the inner product of two such tables is a product of sums.
        x, w = x[:, :: x.shape[1] // ROWS + 1].double(), w.double()
        halves = (x.clamp_min(0), x.clamp_max(0))  # positive and negative inputs run in passes of their own
        gram = sum(half.transpose(1, 2) @ half for half in halves) * (w @ w.transpose(1, 2))
        grams[name] = grams.get(name, 0) + gram

    training = model.training
    model.eval()
    try:
        for name, hook in layers.items():
            hook.listener = lambda x, w, name=name: listener(name, x, w)
        with torch.no_grad():
            for batch in batches:
                model(*batch if isinstance(batch, tuple) else (batch,))
    finally:
        for hook in layers.values():
            hook.listener = None
        model.train(training)
    if missing := [name for name in layers if name not in grams]:
        raise ConfigError(f"no inputs reached layer {missing[0]!r}: a balanced order needs at least one batch")
    return {name: torch.stack([balanced_order(g) for g in gram]) for name, gram in grams.items()}


def _random(hook: MACHook, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    groups, k = hook.sizes
    return torch.stack([torch.randperm(k, generator=draw) for _ in range(groups)])


def _given(layers: Mapping[str, MACHook], name: str, order: Tensor) -> Tensor:
    if name not in layers:
        raise ConfigError(f"no layer {name!r} is on an array: {did_you_mean(name, layers)}")
    groups, k = layers[name].sizes
    order = torch.as_tensor(order)
    order = order.expand(groups, -1) if order.ndim == 1 else order
    right = order.shape == (groups, k) and torch.equal(order.sort(1).values, torch.arange(k).expand(groups, -1))
    if order.dtype != torch.int64 or not right:
        raise ConfigError(f"the order of {name!r}, {tuple(order.shape)}, is no permutation of its {k} rows")
    return order.clone()
