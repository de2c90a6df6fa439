"""From a network to the matrix products an array runs, with the precision each layer asks for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError
from netfit.workload import Workload

from .._traced import Bits, Key
from ._config import SystolicConfig
from ._cost import Products

__all__ = ["Layers", "lower", "widths"]


@dataclass(frozen=True, eq=False)
class Layers:
    """The operators of a network and the matrix products among them.

    Attributes:
        keys: site name and call of every operator.
        kinds: kind of every operator.
        products: all products, in order of execution.
        owner: index of the operator that each product belongs to.
    """

    keys: tuple[Key, ...]
    kinds: tuple[str, ...]
    products: Products
    owner: NDArray[np.intp]

    @property
    def names(self) -> tuple[str, ...]:
        """Site names; a later call of the same place has its number behind it."""
        return tuple(f"{name}#{call}" if call else name for name, call in self.keys)

    def per_op(self, x: Any) -> NDArray[np.float64]:
        """Sums over the products of each operator; 0 for one that multiplies nothing."""
        return np.bincount(self.owner, x, len(self.keys)).astype(np.float64, copy=False)


def lower(workload: Workload, bits: Bits | None = None) -> Layers:
    """The products of a workload.

    Args:
        workload: the traced network.
        bits: (weight bits, activation bits) of every operator; None where no layer has a precision of its own.

    Raises:
        ConfigError: nothing in it multiplies matrices, or a tensor is empty.
    """
    found = [(i, g) for i, op in enumerate(workload) for g in op.gemms()]
    if not found:
        raise ConfigError(f"the network has {len(workload)} operators, none of which is a matrix product")
    owner = np.array([i for i, _ in found], np.intp)
    m, n, k, times, groups = table = np.array([(g.m, g.n, g.k, g.count, g.groups) for _, g in found], np.int64).T
    if table.min() < 1:
        op = workload[owner[int(np.argmin(table.min(0)))]]
        raise ConfigError(f"{op.name}: a matrix product has size {table.min()}; allowed are whole numbers from 1")
    keys = tuple(op.key for op in workload)
    weight_bits, act_bits = None, None
    if bits is not None:
        weight_bits, act_bits = np.array([bits[keys[i]] for i in owner], np.int64).T
    products = Products(m, n, k, times, groups, weight_bits, act_bits)
    return Layers(keys, tuple(op.kind for op in workload), products, owner)


def widths(workload: Workload, asked: Bits, config: SystolicConfig) -> Bits | None:
    """Bits of every layer: those asked for, else the array's own; None when no layer asks.

    Raises:
        ConfigError: a layer asks for more bits than the array multiplies.
    """
    if not asked:
        return None
    own = (config.weight_bits, config.act_bits)
    for (name, _), bits in asked.items():
        for field, want, most in zip(("weight_bits", "act_bits"), bits, own, strict=True):
            if want > most:
                raise ConfigError(f"{name} asks for {field} = {want}; allowed on this array are 1 to {most}")
    return {op.key: asked.get(op.key, own) for op in workload}
