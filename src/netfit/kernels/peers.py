"""Peers compared in each row: one-dimensional DBSCAN per group, fused with median and deviation of the group.

Works on numpy arrays and loads no torch. Without a compiler the same steps run in Python, bit for bit the same and some
hundred times slower.
"""

import ctypes
import functools
import os
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import TargetError
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import source
from netfit.kernels._peers import LONGEST, labels_reference, rows_reference

__all__ = ["EVENT", "LONGEST", "PeerRows", "PeerSettings", "PeerState", "labels", "rows"]

EVENT = np.dtype(
    [(n, np.int64) for n in ("row", "slot", "run", "kind")]
    + [(n, np.float64) for n in ("x", "expected", "z", "score")]
)  # fmt: skip
_NO_EVENT = np.empty(0, EVENT)
_P, _N, _D = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_CHANNEL = {
    "order": np.int32, "peer_order": np.int32, "seen": np.int32, "run": np.int32, "gap": np.int32,
    "bias": np.float64, "spread": np.float64, "drift": np.float64, "kind": np.uint8, "rise": np.uint8,
}  # fmt: skip
_RESULTS = ("median", "std", "group_score", "count")
_SETTINGS = ("min_samples", "min_duration", "min_presence", "memory", "lifetime", "watch_absence")


class _Call(ctypes.Structure):
    """`Call` of peers.c."""

    _fields_ = (
        *((n, _N) for n in ("rows", "columns", "groups")),
        *((n, _P) for n in ("x", "source", "offset", "eps")),
        *((n, _D) for n in ("auto_eps", "resolution", "shift")),
        *((n, _N) for n in _SETTINGS),
        *((n, _P) for n in (*_CHANNEL, "scale", "warm", *_RESULTS, "score", "z")),
        *((n, _N) for n in ("events", "room", "lost")),
        ("event", _P),
    )


@dataclass(frozen=True)
class PeerSettings:
    """What the comparison asks for.

    Args:
        auto_eps: eps of groups without one of their own, in units of the usual distance from the median.
        resolution: smallest such unit, in units of the values.
        shift: such units that a channel may keep off its peers for long; counts where eps is automatic.
        min_samples: points within eps that make a core point, itself included.
        min_duration: rows in a row that a channel must stand out.
        min_presence: rows a channel must have been seen.
        memory: rows after which what is usual is forgotten.
        lifetime: rows of absence after which a channel is forgotten.
        watch_absence: report channels that vanish while half of their peers are there, and those that appear later.
    """

    auto_eps: float = 10.0
    resolution: float = 0.0
    shift: float = 3.0
    min_samples: int = 4
    min_duration: int = 4
    min_presence: int = 4
    memory: int = 4000
    lifetime: int = 10000
    watch_absence: bool = False


class PeerState:
    """What is kept of each channel (46 bytes) and each group between rows.

    Slots are numbered group by group, group g from ``offset[g]`` to ``offset[g + 1]``.

    Args:
        offset: int64 (groups + 1,).
    """

    def __init__(self, offset: NDArray[np.int64]) -> None:
        self.offset = np.ascontiguousarray(offset, np.int64)
        groups, slots = len(offset) - 1, int(offset[-1])
        self.channel: dict[str, NDArray[Any]] = {name: np.zeros(slots, dtype) for name, dtype in _CHANNEL.items()}
        self.scale, self.warm = np.zeros(groups), np.zeros(groups, np.int64)
        local = np.arange(slots) - np.repeat(self.offset[:-1], np.diff(self.offset))
        for name in ("order", "peer_order"):
            self.channel[name][:] = local
        self._call: tuple[_Call, PeerSettings] | None = None

    def call(self, settings: PeerSettings) -> _Call:
        """The call of the native code for these settings, with the places of all that is kept: made once."""
        if self._call is None or self._call[1] is not settings:
            places = {"offset": self.offset, **self.channel, "scale": self.scale, "warm": self.warm}
            call = _Call(
                groups=len(self.offset) - 1, auto_eps=settings.auto_eps, resolution=settings.resolution,
                shift=settings.shift, **{name: int(getattr(settings, name)) for name in _SETTINGS},
                **{name: array.ctypes.data for name, array in places.items()},
            )  # fmt: skip
            self._call = call, settings
        return self._call[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> "PeerState":
        """A state of its own arrays; places are not copied."""
        twin = PeerState(self.offset.copy())
        for name, array in self.channel.items():
            twin.channel[name][:] = array
        twin.scale[:], twin.warm[:] = self.scale, self.warm
        return twin


@dataclass(frozen=True, eq=False)
class PeerRows:
    """What the comparison found.

    Args:
        median: of each group, (rows, groups); NaN where nobody is present.
        std: population standard deviation, the same shape.
        count: channels present, int64, the same shape.
        group_score: score of the channel that stands out most, the same shape. Above 1 is an alarm.
        score: of each channel, float32 (rows, slots), NaN where absent; None unless it was asked for.
        z: of each channel, likewise: distance from where its peers let it be expected, in units of the usual distance
            (of eps where that is given).
        events: array of `EVENT`; kind 0 stands out, 1 stands out at zero, 2 absent, 3 new, 4 keeps off its peers for
            long, which adds nothing to the scores.
    """

    median: NDArray[np.float64]
    std: NDArray[np.float64]
    count: NDArray[np.int64]
    group_score: NDArray[np.float64]
    score: NDArray[np.float32] | None
    z: NDArray[np.float32] | None
    events: NDArray[Any]


def labels(x: NDArray[np.float64], eps: float, min_samples: int) -> NDArray[np.int64]:
    """DBSCAN labels of one group, as scikit-learn numbers its members' clusters; -1 is noise.

    Clusters are numbered by value here. What is not finite is noise.

    Args:
        x: (n,).
        eps: largest distance of neighbours.
        min_samples: neighbours of a core point, itself included.
    """
    x = np.ascontiguousarray(x, np.float64)
    library = _library()
    if library is None:
        return np.array(labels_reference(x.tolist(), eps, min_samples), np.int64)
    out = np.empty(len(x), np.int64)
    if library.peer_labels(x.ctypes.data, len(x), eps, min_samples, out.ctypes.data):
        raise MemoryError(f"DBSCAN of {len(x)} values found no memory")
    return out


def rows(
    x: NDArray[np.float64],
    source: NDArray[np.int64],
    eps: NDArray[np.float64],
    settings: PeerSettings,
    state: PeerState,
    dense: bool = False,
) -> PeerRows:
    """Compare the channels of each group, row after row; updates the state.

    Args:
        x: (rows, columns) C-contiguous; what is not finite is absent.
        source: column of each slot, -1 where there is none, int64 (slots,).
        eps: of each group, 0 for automatic, (groups,).
        settings: what to ask for.
        state: of the channels and groups.
        dense: also return score and z of every channel.
    """
    n, groups, slots = len(x), len(state.offset) - 1, len(source)
    space = np.empty((len(_RESULTS), n, groups))
    score, z = (np.empty((n, slots), np.float32) if dense else None for _ in range(2))
    found = PeerRows(space[0], space[1], space[3].view(np.int64), space[2], score, z, _NO_EVENT)
    library = _library()
    if library is None:
        events = rows_reference(x, source, eps, settings, state, found)
        return _with(found, np.array(events, EVENT))
    call = state.call(settings)
    call.rows, call.columns, call.events, call.room, call.lost, call.event = n, x.shape[1], 0, 0, 0, None
    call.x, call.source, call.eps = x.ctypes.data, source.ctypes.data, eps.ctypes.data
    first = space.ctypes.data
    for i, name in enumerate(_RESULTS):
        setattr(call, name, first + i * space.strides[0])
    call.score, call.z = (None if a is None else a.ctypes.data for a in (score, z))
    failed = library.peer_rows(ctypes.byref(call))
    raw = ctypes.string_at(call.event, call.events * EVENT.itemsize) if call.events else b""
    library.peer_free(call.event)
    if failed:
        raise MemoryError(f"comparing {slots} channels found no memory")
    return _with(found, np.frombuffer(raw, EVENT)) if raw else found


def _with(found: PeerRows, events: NDArray[Any]) -> PeerRows:
    ordered = events[np.lexsort((events["slot"], events["row"]))]
    return replace(found, events=ordered)


def _library() -> ctypes.CDLL | None:
    # Asked on every call, so that a test or a user can switch kernels off without a new process.
    return None if os.environ.get("NETFIT_CC") == "none" else _built()


@functools.cache
def _built() -> ctypes.CDLL | None:
    try:
        library = compile_c(source("cluster.c", "peers.c"), "peers")
    except TargetError as e:
        warnings.warn(f"channels are compared in Python, slowly: {e}", RuntimeWarning, stacklevel=4)
        return None
    library.peer_labels.argtypes = [_P, _N, _D, _N, _P]
    library.peer_rows.argtypes = [_P]
    library.peer_free.argtypes = [_P]
    library.peer_free.restype = None
    return library
