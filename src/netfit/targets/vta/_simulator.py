"""Programs run on the simulated accelerator: what they compute, how long they take, and whether their tokens do."""

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, TargetError
from netfit.kernels import compile_c
from netfit.kernels._ops import source

from ._config import MEMORIES, Config
from ._program import Program
from ._timing import Timing
from .isa import LOAD, STORE, check_fields, disassemble

__all__ = ["Stats", "check", "execute", "simulate", "times"]

_QUEUES = ("load", "compute", "store")
_FIFOS = ("load to compute", "compute to load", "compute to store", "store to compute")
_BAD = {
    1: "reaches beyond a local memory",
    2: "reaches beyond an operand in main memory",
    3: "names micro-ops that are not there",
    4: "has an opcode, memory or operation that the hardware does not know",
}
_DEADLOCK, _LEFT, _RACE = 6, 7, 8


@dataclass(frozen=True)
class Stats:
    """What a run costs.

    Attributes:
        cycles: of the accelerator, from the first instruction to the last.
        seconds: cycles at its clock, and the host's constant.
        busy: cycles that each queue worked.
        counters: bytes by kind of transfer and words of products and vector operations, named as the published
            functional simulator names them.
        utilization: share of the matrix core's steps that did products.
    """

    cycles: float
    seconds: float
    busy: dict[str, float]
    counters: dict[str, int]
    utilization: float


class _Sizes(ctypes.Structure):
    _fields_ = [("depth", ctypes.c_int64 * 4), ("held", ctypes.c_int64 * 5)]


class _Timing(ctypes.Structure):
    _fields_ = [(name, ctypes.c_double) for name in ("start", "row", "bw", "product", "alu", "fetch", "latency")]


@functools.cache
def _library(batch: int, block_in: int, block_out: int) -> ctypes.CDLL:
    sizes = {"BATCH": batch, "BLOCK_IN": block_in, "BLOCK_OUT": block_out}
    code = compile_c(source("vta.c"), "vta", [f"-D{name}={value}" for name, value in sizes.items()])
    code.vta_first_bad.restype = ctypes.c_int64
    return code


def _code(config: Config) -> ctypes.CDLL:
    return _library(config.batch, config.block_in, config.block_out)


def _sizes(program: Program) -> _Sizes:
    depth = [program.config.depth(name) for name in MEMORIES[:4]]
    held = [len(program.uops), program.words["wgt"], program.words["inp"], 0, program.words["out"]]
    return _Sizes((ctypes.c_int64 * 4)(*depth), (ctypes.c_int64 * 5)(*held))


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _checked(program: Program) -> NDArray[Any]:
    """The rows, after what the rest of the C code takes for granted was checked."""
    rows, sizes = np.ascontiguousarray(program.instructions), _sizes(program)
    at = int(_code(program.config).vta_first_bad(_pointer(rows), ctypes.c_int64(len(rows)), ctypes.byref(sizes)))
    if at < 0:
        return rows
    check_fields(rows[at : at + 1], at)
    row = rows[at]
    micro = row["opcode"] == LOAD and row["mem"] == MEMORIES.index("uop")
    if micro:
        raise _failure(program, 2 if int(row["dram"]) + int(row["x_size"]) > len(program.uops) else 1, at)
    raise _failure(program, 4 if row["opcode"] in (LOAD, STORE) else 3, at)


def _failure(program: Program, bad: int, at: int) -> Exception:
    if bad == 5:
        return MemoryError("no memory for a simulation")
    return ConfigError(
        f"instruction {disassemble(program.instructions[at : at + 1])[0][6:].strip()!r} at {at} {_BAD[bad]}"
    )


def execute(program: Program, inp: NDArray[np.int8], wgt: NDArray[np.int8]) -> NDArray[np.int8]:
    """What a program computes, instruction by instruction in program order.

    Args:
        program: instructions and micro-ops.
        inp: int8 (words, batch, block_in), the operand in main memory.
        wgt: int8 (words, block_out, block_in).

    Returns:
        int8 (words, batch, block_out).

    Raises:
        ConfigError: operands of another shape, or an instruction that leaves a memory.
        TargetUnavailable: there is no C compiler.
    """
    rows, c, w = _checked(program), program.config, program.words
    shapes = {"inp": (w["inp"], c.batch, c.block_in), "wgt": (w["wgt"], c.block_out, c.block_in)}
    for name, given in (("inp", inp), ("wgt", wgt)):
        if given.shape != shapes[name] or given.dtype != np.int8:
            raise ConfigError(f"{name} is {given.dtype} {given.shape}: the program takes int8 {shapes[name]}")
    inp, wgt = np.ascontiguousarray(inp), np.ascontiguousarray(wgt)
    out = np.zeros((w["out"], c.batch, c.block_out), np.int8)
    uops = np.ascontiguousarray(program.uops)
    dram = (ctypes.c_void_p * 4)(uops.ctypes.data, wgt.ctypes.data, inp.ctypes.data, None)
    where = np.zeros(1, np.int64)
    sizes = _sizes(program)
    run = _code(c).vta_run
    bad = run(_pointer(rows), ctypes.c_int64(len(rows)), ctypes.byref(sizes), dram, _pointer(out), _pointer(where))
    if bad:
        raise _failure(program, bad, int(where[0]))
    return out


def times(program: Program, timing: Timing | None = None) -> Stats:
    """How long a program takes.

    Args:
        program: instructions and micro-ops.
        timing: cycles of each kind of instruction; those of the published board when None.

    Raises:
        ConfigError: an instruction names what is not there.
        TargetError: a queue waits for a token that never comes, or tokens are left over.
        TargetUnavailable: there is no C compiler.
    """
    timing = timing or Timing()
    ends, _, busy = _timed(program, timing, False)
    counters = _counters(program)
    cycles = float(ends.max(initial=0.0))
    seconds = cycles / program.config.clock_hz + timing.host_s
    work = dict(zip(_QUEUES, map(float, busy), strict=True))
    return Stats(cycles, seconds, work, counters, counters["gemm_counter"] / cycles if cycles else 0.0)


def check(program: Program) -> None:
    """That the tokens order what must be ordered, however long each instruction takes.

    Two instructions of different queues that touch one word of a local memory, one of them writing, must be ordered by
    tokens; every token that is pushed must be popped. Vector clocks over the three queues decide it.

    Raises:
        TargetError: a race, a deadlock, or a token left over; the message names the instructions or queues.
        ConfigError: an instruction names what is not there.
    """
    _, seen, _ = _timed(program, Timing(), True)
    rows, uops, where = (
        np.ascontiguousarray(program.instructions),
        np.ascontiguousarray(program.uops),
        np.zeros(2, np.int64),
    )
    sizes = _sizes(program)
    races = _code(program.config).vta_races
    bad = races(
        _pointer(rows), ctypes.c_int64(len(rows)), ctypes.byref(sizes), _pointer(uops), _pointer(seen), _pointer(where)
    )
    if bad == _RACE:
        first, second = (disassemble(rows[i : i + 1])[0][6:].strip() for i in where)
        raise TargetError(
            f"race: no token orders instruction {where[0]} ({first}) before instruction {where[1]} ({second})"
        )
    if bad:
        raise _failure(program, bad, int(where[1]))


def simulate(
    program: Program, inp: NDArray[np.int8], wgt: NDArray[np.int8], timing: Timing | None = None
) -> tuple[NDArray[np.int8], Stats]:
    """Result and cost of a program, after its tokens were checked; see `execute`, `times` and `check`."""
    check(program)
    return execute(program, inp, wgt), times(program, timing)


def _timed(
    program: Program, timing: Timing, order: bool
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    rows, uops = _checked(program), np.ascontiguousarray(program.uops)
    n = len(rows)
    ends, busy, where = np.zeros(n), np.zeros(3), np.zeros(7, np.int64)
    seen = np.zeros((n, 3) if order else 0, np.int32)
    word_bytes = np.array([program.config.word_bytes(name) for name in MEMORIES], np.int64)
    cycles = _Timing(
        timing.dma_start, timing.dma_row, timing.dma_bytes_per_cycle, timing.gemm_start, timing.alu_step, timing.fetch,
        timing.mac_latency,
    )  # fmt: skip
    sizes = _sizes(program)
    bad = _code(program.config).vta_times(
        _pointer(rows), ctypes.c_int64(n), ctypes.byref(cycles), _pointer(word_bytes), ctypes.byref(sizes),
        _pointer(uops), _pointer(ends), _pointer(seen) if order else None, _pointer(where), _pointer(busy),
    )  # fmt: skip
    if bad == _DEADLOCK:
        blocked = [
            f"{name} at {disassemble(rows[i : i + 1])[0].strip()!r}"
            for name, i in zip(_QUEUES, where[:3], strict=True)
            if i >= 0
        ]
        raise TargetError(f"deadlock: queues wait for tokens that never come: {'; '.join(blocked)}")
    if bad == _LEFT:
        left = [f"{count} from {name}" for name, count in zip(_FIFOS, where[3:], strict=True) if count]
        raise TargetError(f"tokens are left over, the next program would run into them: {', '.join(left)}")
    if bad:
        raise _failure(program, bad, 0)
    return ends, seen, busy


def _counters(program: Program) -> dict[str, int]:
    rows, c, found = np.ascontiguousarray(program.instructions), program.config, np.zeros(7, np.int64)
    _code(c).vta_count(_pointer(rows), ctypes.c_int64(len(rows)), _pointer(found))
    loaded = {f"{name}_load_nbytes": int(n) * c.word_bytes(name) for name, n in zip(MEMORIES[:4], found, strict=False)}
    stored = {"out_store_nbytes": int(found[4]) * c.word_bytes("out")}
    return {**loaded, **stored, "gemm_counter": int(found[5]), "alu_counter": int(found[6])}
