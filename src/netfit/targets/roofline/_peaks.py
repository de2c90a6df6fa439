"""What one core of this machine can do at most, measured: reads of every cache level, arithmetic of every precision.

Machines are shared, so the clock is the CPU time of this thread, repeats are short (some 50 us) and spread over
rounds, and the fast ones are believed: other processes can only make a repeat slower. "Understanding Cache Boundness
of ML Operators on ARM Processors" (2021) measures its roofs by such loops in assembly; these are C with vector
extensions, so the same code runs on x86 and ARM.
"""

import ctypes
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netfit import env
from netfit.errors import ArtifactError, TargetError
from netfit.kernels import compile_c, toolchain
from netfit.kernels._ops import source

from .._cache import Cache

PROTOCOL = 1  # raise it when the numbers change their meaning
QUANTILE = 0.05  # of the repeats: the fast ones saw no other process
ROUNDS, REPEATS, STEPS, TILE_STEPS = 6, 20, 20_000, 2_000
PASS_BYTES = 2 << 20  # read by one repeat, at least
# precision -> unit -> (function, operations of one lane): a multiply-accumulate is two operations a value.
_UNITS = {
    "fp32": {"vector": ("peak_fp32", 2)},
    "bf16": {"vector": ("peak_bf16", 4), "tiles": ("peak_bf16_tiles", 4)},
    "int8": {"vector": ("peak_int8", 8), "tiles": ("peak_int8_tiles", 8)},
    "bits": {"vector": ("peak_bits", 64)},
}


@dataclass(frozen=True)
class Peaks:
    """The roofs of one core.

    Attributes:
        device: the processor.
        caches: bytes of each cache level, smallest first.
        read: bytes per second from each level, main memory (``"dram"``) last.
        write: bytes per second to each level, the fetching of the lines before included.
        ops: operations per second by precision and unit; ``"bits"`` counts two for every bit that is multiplied.
            ``"vector"`` is the widest vector instruction, ``"tiles"`` a matrix unit.
        vector_bytes: bytes of a vector.
        chain_s: seconds of an fp32 multiply-accumulate that waits for the one before.
        curve: (bytes, bytes per second) of repeated reads over buffers of growing size.
        noise: median over fast repeats, less one, of each peak: how busy the machine was.
    """

    device: str
    caches: Mapping[str, int]
    read: Mapping[str, float]
    write: Mapping[str, float]
    ops: Mapping[str, Mapping[str, float]]
    vector_bytes: int
    chain_s: float
    curve: tuple[tuple[int, float], ...]
    noise: Mapping[str, float]

    def best(self, precision: str) -> float:
        """Operations per second of the fastest unit; that of the next wider precision where there is none."""
        wider = {"bf16": "fp32", "int8": "fp32", "bits": "int8"}
        found = max(self.ops.get(precision, {}).values(), default=0.0)
        return max(found, self.best(wider[precision])) if precision in wider else found

    def to_json(self) -> dict[str, Any]:
        """JSON object that ``from_json`` reads back without loss."""
        return asdict(self)

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "Peaks":
        """Read what ``to_json`` wrote.

        Raises:
            ArtifactError: ``obj`` does not hold peaks, or one is not positive.
        """
        try:
            peaks = cls(**{**obj, "curve": tuple((int(size), float(rate)) for size, rate in obj["curve"])})
            rates = [
                *peaks.read.values(),
                *(peaks.write[level] for level in peaks.read),
                peaks.best("fp32"),
                peaks.chain_s,
                peaks.vector_bytes,
            ]
            if not all(np.isfinite(rates)) or min(rates) <= 0 or not {"l1", "dram"} <= set(peaks.read):
                raise ValueError("a peak is missing or not positive")
            return peaks
        except (TypeError, ValueError, KeyError, AttributeError) as e:
            raise ArtifactError(f"not the peaks of a machine: {type(e).__name__}: {e}") from e


def measure_peaks(*, cache: str | Path | None = None, fresh: bool = False) -> Peaks:
    """The peaks of this machine: kept ones where there are any, else measured in some ten seconds.

    Args:
        cache: folder of kept results; the user's cache of netfit by default.
        fresh: measure even if there are kept ones, and keep the new.

    Raises:
        TargetUnavailable: there is no C compiler.
        TargetError: the machine has too little memory to measure.
    """
    code = _library()
    tools = toolchain()
    facts = {"target": "roofline", "protocol": PROTOCOL, "cc": tools and tools.identity, "caches": env.caches()}
    kept = Cache(None if cache is None else Path(cache), facts | {"source": env.digest(_text())})
    found = None if fresh else kept.get(Peaks.from_json, "peaks")
    if found is None:
        found = _measured(code)
        kept.put(found.to_json(), "peaks")
    return found


def _text() -> str:
    return source("vectors.h") + source("peaks.c")


@functools.cache
def _library() -> ctypes.CDLL:
    code = compile_c(_text(), "peaks", ["-ffp-contract=fast"])
    for name in [f for units in _UNITS.values() for f, _ in units.values()] + ["peak_chain"]:
        getattr(code, name).argtypes, getattr(code, name).restype = [ctypes.c_int64], ctypes.c_int64
    code.peak_memory.argtypes, code.peak_memory.restype = [ctypes.c_int64], ctypes.c_void_p
    code.peak_free.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    for function in (code.peak_read, code.peak_write):
        function.argtypes, function.restype = [ctypes.c_void_p, *[ctypes.c_int64] * 2], None
    code.peak_vector_bytes.restype = ctypes.c_int64
    return code


def _measured(code: ctypes.CDLL) -> Peaks:
    sizes, far = _sizes(env.caches()), 3 * max(env.caches().values()) // 2
    place = code.peak_memory(far)
    if not place:
        raise TargetError(f"no {far >> 20} MiB of memory to read beyond the last cache: free some")
    try:
        return _found(code, sizes, place, far)
    finally:
        code.peak_free(place, far)


def _found(code: ctypes.CDLL, sizes: list[int], place: int, far: int) -> Peaks:
    work: dict[str, Callable[[], int]] = {
        f"{precision} {unit}": functools.partial(getattr(code, name), TILE_STEPS if unit == "tiles" else STEPS)
        for precision, units in _UNITS.items()
        for unit, (name, _) in units.items()
    }
    work["chain"] = functools.partial(code.peak_chain, STEPS // 4)
    for way, touch in (("read", code.peak_read), ("write", code.peak_write)):
        work |= {f"{way} {size}": _repeated(touch, place, size) for size in sizes}
        work[f"{way} dram"] = _walking(touch, place, far)
    done = {name: call() for name, call in work.items()}  # also a warm-up; how much one call does
    seconds = _timed({name: call for name, call in work.items() if done[name]})
    fast = {name: float(np.quantile(found, QUANTILE)) for name, found in seconds.items()}
    rate = {name: done[name] / fast[name] for name in fast}
    curve, written = (tuple((size, rate[f"{way} {size}"]) for size in sizes) for way in ("read", "write"))
    ops = {
        precision: {u: each * rate[f"{precision} {u}"] for u, (_, each) in units.items() if f"{precision} {u}" in rate}
        for precision, units in _UNITS.items()
    }
    noise = {name: float(np.median(seconds[name]) / fast[name] - 1) for name in fast}
    read, write = _levels(curve, rate["read dram"]), _levels(written, rate["write dram"])
    caches, device = env.caches(), env.fingerprint()["cpu"]
    return Peaks(device, caches, read, write, ops, code.peak_vector_bytes(), 1 / rate["chain"], curve, noise)


def _timed(work: Mapping[str, Callable[[], int]]) -> dict[str, list[float]]:
    """Seconds of every call, in rounds: a busy second meets some repeats of each and not all of one."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, call in work.items():
            large = call() > 2 * PASS_BYTES  # also fetches what the last one drove out
            for _ in range(REPEATS // 5 if large else REPEATS):
                before = time.thread_time_ns()
                call()
                seconds[name].append((time.thread_time_ns() - before) * 1e-9)
    return seconds


def _sizes(caches: Mapping[str, int]) -> list[int]:
    """Buffers to touch again and again: powers of two and halves between, up to half of the last cache or 32 MiB."""
    largest = min(max(caches.values()) // 2, 32 << 20)
    both = (scale * part for scale in (1 << i for i in range(12, 27)) for part in (1.0, 1.5))
    return [int(size) for size in both if size <= largest]


def _repeated(touch: Callable[..., None], place: int, size: int) -> Callable[[], int]:
    turns = max(1, PASS_BYTES // size)

    def call() -> int:
        touch(place, size, turns)
        return size * turns

    return call


def _walking(touch: Callable[..., None], place: int, far: int) -> Callable[[], int]:
    """The next piece of a memory that no cache holds, over and over."""
    at = 0

    def call() -> int:
        nonlocal at
        at = at + PASS_BYTES if at + 2 * PASS_BYTES <= far else 0
        touch(place + at, PASS_BYTES, 1)
        return PASS_BYTES

    return call


def _levels(curve: tuple[tuple[int, float], ...], dram: float) -> dict[str, float]:
    """Best rate over buffers that one level holds and the level before does not; a level is no slower than the next."""
    found: dict[str, float] = {}
    before = 0
    for level, size in env.caches().items():
        inside = [rate for buffer, rate in curve if 4 * before <= buffer <= size // 2]
        if inside:
            found[level] = max(inside)
        before = size
    rates = {**found, "dram": dram}
    best = 0.0
    for level in reversed(rates):
        rates[level] = best = max(best, rates[level])
    return rates
