"""Families of arrays on several networks: every combination counted, block by block.

Closed forms divide lengths by rows or by columns, so on a grid they divide once per value of an axis; what is left
for every array are a few multiplications. Sums over layers are taken before words become bytes and joules.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netfit.errors import ConfigError, did_you_mean
from netfit.workload import Workload

from ._bandwidth import Memory
from ._config import RANGES, Compat, SystolicConfig
from ._cost import Products, check_compat, summed, words
from ._forms import Flow, Loads
from ._layers import lower

__all__ = ["SweepResult", "sweep"]

Grid = NDArray[Any]
AXES = ("rows", "cols", "accum_rows", "weight_bits", "act_bits", "accum_bits")
COUNTERS = (
    "cycles", "energy_j", "buffer_bytes", "dram_bytes", "act_loads", "weight_loads", "result_stores", "accum_writes",
    "inter_pe", "intra_pe", "utilization",
)  # fmt: skip
_BLOCK = 1 << 17  # layers x arrays counted at a time: their few arrays of numbers stay in the cache


@dataclass(frozen=True, eq=False)
class SweepResult:
    """Every array of a grid on every network.

    Attributes:
        axes: values of each swept field; the grids below have one axis each, in this order.
        config: the array whose swept fields were replaced.
        networks: network -> counter -> grid. Counters are sums over a network; ``utilization`` is the network's.
    """

    axes: Mapping[str, NDArray[np.int64]]
    config: SystolicConfig
    networks: Mapping[str, Mapping[str, Grid]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(values) for values in self.axes.values())

    def array(self, index: int) -> dict[str, int]:
        """Swept fields of one array by its flat index."""
        at = np.unravel_index(index, self.shape)
        return {name: int(values[i]) for (name, values), i in zip(self.axes.items(), at, strict=True)}

    def values(self, network: str, objective: str) -> NDArray[np.float64]:
        """A counter of a network, or what follows from counters.

        Args:
            network: one that was swept.
            objective: a counter, ``"time_s"``, ``"edp"`` (energy times time) or ``"pe_cycles"`` (cycles times
                elements, the inverse of utilisation).

        Raises:
            ConfigError: no such network or objective.
        """
        if network not in self.networks:
            raise ConfigError(f"network {network!r} was not swept; {did_you_mean(network, self.networks)}")
        found = self.networks[network]
        if objective in found:
            return np.asarray(found[objective], np.float64)
        time = found["cycles"] / self.config.clock_hz
        if objective == "time_s":
            return np.asarray(time)
        if objective == "edp":
            return np.asarray(time * found["energy_j"])
        if objective == "pe_cycles":
            machine = _machine(self.config, self.axes)
            return np.broadcast_to(found["cycles"] * (machine.rows * machine.cols * 1.0), self.shape)
        known = [*found, "time_s", "edp", "pe_cycles"]
        raise ConfigError(f"no objective {objective!r}; {did_you_mean(objective, known)}")

    def best(self, network: str, objective: str = "cycles") -> dict[str, Any]:
        """The array of least ``objective`` on one network, with its value; the first of equals."""
        values = self.values(network, objective)
        index = int(np.argmin(values))
        return {**self.array(index), objective: float(values.flat[index])}

    def relative(self, objective: str) -> NDArray[np.float64]:
        """(networks, ...) each network's value beside the best that any array reaches on it."""
        grids = [self.values(network, objective) for network in self.networks]
        return np.stack([grid / grid.min() for grid in grids])

    def robust(self, objective: str = "edp") -> dict[str, Any]:
        """The array whose worst regret over all networks is least.

        The regret of an array on a network is how much more it takes there than the best array for that network.

        Returns:
            Its swept fields, ``regret`` (0.1 is 10 % more than the best) and ``regrets`` by network.
        """
        relative = self.relative(objective) - 1
        index = int(np.argmin(relative.max(0)))
        regrets = {name: float(grid.flat[index]) for name, grid in zip(self.networks, relative, strict=True)}
        return {**self.array(index), "regret": max(regrets.values()), "regrets": regrets}

    def heatmap(self, x: str = "cols", y: str = "rows", objective: str = "edp") -> NDArray[np.float64]:
        """(y, x) least worst regret over the axes that are not drawn.

        Raises:
            ConfigError: an axis that was not swept, or the same twice.
        """
        names = list(self.axes)
        for name in (x, y):
            if name not in names or x == y:
                raise ConfigError(f"heat map over x={x!r}, y={y!r}: allowed are two different ones of {names}")
        worst = self.relative(objective).max(0) - 1
        others = tuple(i for i, name in enumerate(names) if name not in (x, y))
        flat = worst.min(axis=others) if others else worst
        return flat if names.index(y) < names.index(x) else flat.T

    def columns(self, network: str) -> dict[str, NDArray[Any]]:
        """Flat columns of all arrays: the swept fields, then every counter; `netfit.search.Sweep` keeps them."""
        grids = np.meshgrid(*self.axes.values(), indexing="ij")
        fields = {name: grid.ravel() for name, grid in zip(self.axes, grids, strict=True)}
        return fields | {name: self.values(network, name).ravel() for name in self.networks[network]}


def sweep(
    workloads: Mapping[str, Workload],
    space: Mapping[str, ArrayLike],
    config: SystolicConfig | None = None,
    compat: Compat | None = None,
) -> SweepResult:
    """Count every array of a grid on every network.

    Args:
        workloads: traced networks by name.
        space: field of `SystolicConfig` to its values: ``rows``, ``cols``, ``accum_rows``, ``weight_bits``,
            ``act_bits``, ``accum_bits``.
        config: everything else of the arrays.
        compat: count as a reference does.

    Raises:
        ConfigError: no network, or a field or value that cannot be swept.

    >>> from netfit.workload import trace
    >>> from torch import nn, ones
    >>> result = sweep({"net": trace(nn.Linear(64, 64), ones(8, 64))}, {"rows": [8, 16], "cols": [8, 16, 32]})
    >>> result.best("net")
    {'rows': 16, 'cols': 32, 'cycles': 111.0}
    """
    config = config or SystolicConfig(1, 1)
    check_compat(config, compat)
    axes = _axes(space)
    if not workloads:
        raise ConfigError("a sweep needs at least one network, got none")
    networks = {name: _network(workload, axes, config, compat) for name, workload in workloads.items()}
    return SweepResult(axes, config, networks)


def _axes(space: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.int64]]:
    if not space:
        raise ConfigError(f"a sweep needs a field to change: {', '.join(AXES)}")
    axes = {}
    for name, given in space.items():
        if name not in AXES:
            raise ConfigError(f"{name!r} cannot be swept; {did_you_mean(name, AXES)}")
        values, (low, high) = np.atleast_1d(np.asarray(given)), RANGES[name]
        if values.dtype.kind not in "iu" or values.ndim != 1 or not values.size:
            raise ConfigError(f"{name} = {given!r:.60} of a sweep: allowed are whole numbers from {low} to {high}")
        wrong = values[(values < low) | (values > high)]
        if wrong.size:
            raise ConfigError(f"{name} = {wrong[0]} of a sweep: allowed are whole numbers from {low} to {high}")
        axes[name] = values.astype(np.int64)
    return axes


def _network(
    workload: Workload, axes: Mapping[str, NDArray[np.int64]], config: SystolicConfig, compat: str | None
) -> dict[str, Grid]:
    shape = tuple(len(values) for values in axes.values())
    products = _unique(lower(workload).products, len(axes))
    out: dict[str, Grid] = {}
    for at in _blocks(shape, max(1, _BLOCK // len(products.m))):
        machine = _machine(config, {name: axes[name][part] for name, part in zip(axes, at, strict=True)})
        counted = _totals(products, machine, compat)
        for name in COUNTERS:
            value = getattr(counted, name)
            if name not in out:
                out[name] = np.empty(shape, value.dtype)
            out[name][at] = value
    return out


def _unique(p: Products, dimensions: int) -> Products:
    """Equal layers once, with the sum of their repetitions; shaped to broadcast against a grid."""
    sizes, place = np.unique(np.stack([p.m, p.n, p.k, p.groups]), axis=1, return_inverse=True)
    times = np.zeros(sizes.shape[1], np.int64)
    np.add.at(times, place.ravel(), p.times)
    m, n, k, groups, times = (x.reshape(-1, *[1] * dimensions) for x in (*sizes, times))
    return Products(m, n, k, times, groups)


def _machine(config: SystolicConfig, axes: Mapping[str, NDArray[np.int64]]) -> SimpleNamespace:
    """The fields of the array, each swept one along an axis of its own."""
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__}
    for i, (name, values) in enumerate(axes.items()):
        fields[name] = values.reshape([-1 if j == i else 1 for j in range(len(axes))])
    return SimpleNamespace(**fields)


def _totals(products: Products, machine: Any, compat: str | None) -> Any:
    """Counters of a network: words summed over layers, then made bytes and energy."""
    moved, inside, memory = words(products, machine, compat)
    whole = Loads(*(x.sum(0) for x in moved)), Flow(*(x.sum(0) for x in inside)), Memory(*(x.sum(0) for x in memory))
    macs = (products.m * products.n * products.k * products.times * products.groups).sum()
    return summed(Products(macs, 1, 1), machine, *whole)


def _blocks(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Cut a grid into blocks of at most that many points, along its first axes."""
    if not shape:
        yield ()
        return
    inner = prod(shape[1:])
    step = max(1, most // inner)
    for begin in range(0, shape[0], step):
        for rest in _blocks(shape[1:], most) if inner > most else [tuple(slice(None) for _ in shape[1:])]:
            yield (slice(begin, begin + step), *rest)
