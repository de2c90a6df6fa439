"""What the order of additions costs a network on a saturating array, and what a better order brings back."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.seeding import derive
from netfit.surgery import Policy, apply, calibrate, sites
from netfit.train import evaluate

from .._matrix import KINDS
from ._mac import SaturatingMAC
from ._order import order_rows

__all__ = ["OrderStudy", "compare_orders"]


@dataclass(frozen=True)
class OrderStudy:
    """Accuracies, 0 to 1, of one trained network.

    Attributes:
        digital: without the array.
        unordered: on a model of the array that saturates only at the end of a sum.
        natural: on the array, rows as they stand.
        random: in random orders.
        balanced: in the balanced order.
        orders: the balanced order of each layer, int64 (groups, k).
    """

    digital: float
    unordered: float
    natural: float
    random: tuple[float, ...]
    balanced: float
    orders: dict[str, Tensor]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a result file; the orders as lists."""
        values: dict[str, Any] = {name: getattr(self, name) for name in ("digital", "unordered", "natural", "balanced")}
        return values | {"random": list(self.random), "orders": {n: o.tolist() for n, o in self.orders.items()}}


def compare_orders(
    model: nn.Module,
    mac: SaturatingMAC,
    calibration: Tensor,
    judged: tuple[Tensor, Tensor],
    random_orders: int = 5,
    seed: int = 0,
) -> OrderStudy:
    """Score a trained network on an array in several orders of its rows; every score meets the same noise.

    Args:
        model: stays as it is; all its linear layers and 2-d convolutions go to the array.
        mac: the array.
        calibration: inputs that set the ranges and the balanced order.
        judged: inputs and labels.
        random_orders: how many.
        seed: of the noise and the random orders.

    Raises:
        ConfigError: the model has no such layer.
    """
    kinds = sorted({s.kind for s in sites(model, calibration[:2])} & KINDS)
    if not kinds:
        raise ConfigError(f"{type(model).__name__} has no linear layer and no 2-d convolution to put on an array")

    def on_array(changed: SaturatingMAC) -> nn.Module:
        new = apply(model, Policy({f"kind:{kind}": changed for kind in kinds}), calibration[:2])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "calibration"))
            calibrate(new, calibration.split(256))
        return new.eval()

    def score(net: nn.Module) -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "noise"))
            return evaluate(net, *judged)

    analog = on_array(mac)
    natural, random = score(analog), []
    for i in range(random_orders):
        order_rows(analog, method="random", seed=derive(seed, "order", i))
        random.append(score(analog))
    orders = order_rows(analog, calibration.split(256), "balanced")
    unordered = score(on_array(replace(mac, ordered=False)))
    return OrderStudy(score(model), unordered, natural, tuple(random), score(analog), orders)
