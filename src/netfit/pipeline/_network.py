"""Links between the devices of a pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from netfit.errors import ConfigError, did_you_mean
from netfit.targets import LinkSpec

from ._costs import FloatArray

__all__ = ["PRESETS", "Network"]

Link = tuple[int, int]

# Least-squares fits of the send/recv profiles that Vidur ships (bytes, ms), one message alone on the link.
PRESETS = {
    "a100-nvlink": LinkSpec(13e-6, 286e9),
    "a100-ib": LinkSpec(29e-6, 7.8e9),
    "h100-nvlink": LinkSpec(7.6e-6, 357e9),
    "h100-ib": LinkSpec(19e-6, 36e9),
    "a40-pcie": LinkSpec(1.7e-6, 4.1e9),
    "free": LinkSpec(0.0, math.inf),
}


@dataclass(frozen=True, eq=False)
class Network:
    """The links of ``devices`` devices.

    Args:
        latency_s: seconds from the end of a message at the sender to its arrival, ``(devices, devices)``.
        bytes_per_s: bandwidth; infinity for a link that is never busy.
        duplex: ``"half"`` when the two directions of a pair share one wire.
        shared: groups of directed links that are one wire.
        send: ``"blocking"`` keeps the sender until its message has arrived.
        recv: ``"in-order"`` lets a device receive only in the order its row needs the messages, the way a posted
            receive blocks those behind it.
        name: for tables.

    >>> Network.preset("h100-ib", devices=4).bytes_per_s[0, 1]
    np.float64(36000000000.0)
    """

    latency_s: FloatArray
    bytes_per_s: FloatArray
    duplex: Literal["full", "half"] = "full"
    shared: tuple[frozenset[Link], ...] = ()
    send: Literal["overlap", "blocking"] = "overlap"
    recv: Literal["when-needed", "in-order"] = "when-needed"
    name: str = "custom"

    def __post_init__(self) -> None:
        for field, low in (("latency_s", 0.0), ("bytes_per_s", math.ulp(0.0))):
            array = np.asarray(getattr(self, field), dtype=np.float64)
            object.__setattr__(self, field, array)
            square = array.ndim == 2 and array.shape[0] == array.shape[1] and array.size
            if not square or array.shape != np.shape(self.latency_s):
                raise ConfigError(f"network: {field} has shape {array.shape}, expected (devices, devices)")
            if (bad := ~(array >= low)).any() or (field == "latency_s" and not np.isfinite(array).all()):
                value = array[bad][0] if bad.any() else math.inf
                raise ConfigError(f"network: {field} is {value}, it must be {'at least 0' if low == 0 else 'positive'}")
        choices = {"duplex": ("full", "half"), "send": ("overlap", "blocking"), "recv": ("when-needed", "in-order")}
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise ConfigError(f"network: {field} is {getattr(self, field)!r}; {did_you_mean('', known)}")
        used = [link for group in self.shared for link in group]
        if len(set(used)) != len(used) or any(not 0 <= d < self.devices for link in used for d in link):
            raise ConfigError("network: shared must hold links between existing devices, each in one group")

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self.latency_s)

    @classmethod
    def uniform(cls, devices: int, latency_s: float = 0.0, bytes_per_s: float = math.inf, name: str = "") -> Network:
        """Every pair joined by a link of its own."""
        if devices < 1:
            raise ConfigError(f"network: {devices} devices, it must be at least 1")
        shape = (devices, devices)
        name = name or f"{latency_s:g} s, {bytes_per_s:g} B/s"
        return cls(np.full(shape, latency_s), np.full(shape, bytes_per_s), name=name)

    @classmethod
    def preset(cls, name: str, devices: int, *, inside: str | None = None, per_node: int = 1) -> Network:
        """Links measured on real machines.

        Args:
            name: one of `PRESETS`: in a node ``a100-nvlink``, ``h100-nvlink``, ``a40-pcie``; between nodes
                ``a100-ib``, ``h100-ib``; ``free`` costs nothing.
            devices: number of devices.
            inside: preset of the links in a node, when ``per_node`` neighbours share one.
            per_node: devices of one node.

        Raises:
            ConfigError: no preset has that name.
        """
        between, within = (_known(n) for n in (name, inside or name))
        node = np.arange(devices) // max(per_node, 1)
        same = node[:, None] == node[None, :]
        made = cls.uniform(devices, name=name if inside is None else f"{inside} in nodes of {per_node}, {name} between")
        latency = np.where(same, within.latency_s, between.latency_s)
        bandwidth = np.where(same, within.bandwidth_bytes_per_s, between.bandwidth_bytes_per_s)
        return replace(made, latency_s=latency, bytes_per_s=bandwidth)

    @staticmethod
    def fit(sizes: ArrayLike, times: ArrayLike) -> LinkSpec:
        """Latency and bandwidth from measured messages: least squares of the relative error.

        Args:
            sizes: bytes, at least two different ones.
            times: seconds of each message.

        Raises:
            ConfigError: the data do not fit a link, such as a negative latency or times that fall with the size.

        >>> round(Network.fit([1e6, 2e6, 4e6], [1.1e-3, 2.1e-3, 4.1e-3]).latency_s, 9)
        0.0001
        """
        x, y = np.asarray(sizes, dtype=np.float64), np.asarray(times, dtype=np.float64)
        if x.ndim != 1 or x.shape != y.shape or len(np.unique(x)) < 2:
            raise ConfigError(f"link fit: sizes {x.shape} and times {y.shape} must hold two or more different sizes")
        if not (np.isfinite(x) & np.isfinite(y) & (x >= 0) & (y > 0)).all():
            raise ConfigError("link fit: sizes must be at least 0 and times positive, both finite")
        # Dividing by the time weighs small messages as much as large ones; otherwise latency would be noise.
        (latency, per_byte), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], 1), np.ones(len(y)), rcond=None)
        if latency < 0:
            raise ConfigError(
                f"link fit: latency is {latency:g} s, it must be at least 0; add measurements of small messages"
            )
        if per_byte <= 0:
            raise ConfigError(f"link fit: {per_byte:g} s per byte, it must be positive; times must grow with the size")
        return LinkSpec(float(latency), float(1 / per_byte))

    def scaled(self, factor: float) -> Network:
        """The same network with ``factor`` times the bandwidth."""
        return replace(self, bytes_per_s=self.bytes_per_s * factor)

    def wires(self) -> list[list[int]]:
        """Number of the wire that every directed link uses; links with one number wait for each other."""
        wire = [[source * self.devices + to for to in range(self.devices)] for source in range(self.devices)]
        if self.duplex == "half":
            wire = [[wire[min(a, b)][max(a, b)] for b in range(self.devices)] for a in range(self.devices)]
        for group in self.shared:
            joined = {wire[a][b] for a, b in group}
            wire = [[min(joined) if w in joined else w for w in row] for row in wire]
        return wire


def _known(name: str) -> LinkSpec:
    if name not in PRESETS:
        raise ConfigError(f"no network preset {name!r}; {did_you_mean(name, PRESETS)}")
    return PRESETS[name]
