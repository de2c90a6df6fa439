"""PTX instructions as the twelve numbers a kernel's time and power are predicted from, with no GPU at hand.

Source of the groups: "A Simple Model for Portable and Fast Prediction of Execution Time and Power Consumption of GPU
Kernels" (2021).
"""

import re
from collections.abc import Mapping, Sequence
from math import prod

from netfit.errors import ConfigError, did_you_mean

__all__ = ["GROUPED", "grouped", "ptx_counts", "ptx_features"]

# The numbers of a kernel, in the order of the feature rows.
GROUPED = (
    "threads_per_block", "blocks", "instructions", "special", "logic", "control", "arithmetic", "sync",
    "global_bytes", "param_bytes", "shared_bytes", "intensity",
)  # fmt: skip

_WIDTH = re.compile(r"\.[busf](\d+)$|\.[busf]16x2$")
_VECTOR = re.compile(r"\.v(\d)\b")
_GROUPS: dict[str, tuple[str, ...]] = {
    "control": ("bra", "brx", "call", "ret", "exit"),
    "special": ("sqrt", "rsqrt", "sin", "cos", "lg2", "ex2", "tanh"),
    "logic": ("and", "or", "xor", "not", "cnot", "lop3", "shl", "shr", "shf"),
    "sync": ("bar", "barrier"),
    "arithmetic": (
        "add", "sub", "mul", "mad", "mad24", "mul24", "fma", "div", "rem", "abs", "neg", "min", "max", "rcp", "addc",
        "subc", "madc", "sad", "popc", "clz", "bfind", "brev", "bfe", "bfi", "dp4a", "dp2a", "copysign",  # int, float
        "set", "setp", "selp", "slct", "mov", "shfl", "prmt", "cvt", "cvta",  # comparison, moves, conversion
    ),
}  # fmt: skip
_GROUP_OF = {head: group for group, heads in _GROUPS.items() for head in heads}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_ENTRY = re.compile(r"\.entry\s+([\w$.]+)")
_LABEL = re.compile(r"^([$\w]+):")


def grouped(counts: Mapping[str, float], grid: Sequence[int], block: Sequence[int]) -> dict[str, float]:
    """The twelve numbers of a kernel.

    Args:
        counts: executed instructions by opcode, all threads together.
        grid: thread blocks along each axis.
        block: threads of a block along each axis.

    >>> found = grouped({"fma.rn.f32": 64.0, "ld.global.v2.f32": 32.0, "ret": 32.0}, (1, 1, 1), (32, 1, 1))
    >>> found["arithmetic"], found["global_bytes"], found["control"]
    (64.0, 256.0, 32.0)
    """
    out = dict.fromkeys(GROUPED, 0.0)
    out["threads_per_block"], out["blocks"] = float(prod(block)), float(prod(grid))
    for opcode, count in counts.items():
        head = opcode.split(".")[0]
        out["instructions"] += count
        if head in ("ld", "st", "ldu", "red", "atom"):
            out[_space(opcode)] = out.get(_space(opcode), 0.0) + count * _bytes(opcode)
        elif head in _GROUP_OF:
            out[_GROUP_OF[head]] += count
    moved = out["global_bytes"] + out["param_bytes"]
    out["intensity"] = out["arithmetic"] / moved if moved else 0.0
    return {name: out[name] for name in GROUPED}


def _space(opcode: str) -> str:
    """Which of the byte counts a memory instruction adds to; a plain load may go anywhere, so counts as global."""
    spaces = opcode.replace("::", ".").split(".")
    return next(
        (f"{space}_bytes" for space in ("shared", "param", "local", "const") if space in spaces), "global_bytes"
    )


def _bytes(opcode: str) -> float:
    if opcode.split(".")[0] in ("atom", "red"):
        return 4.0  # as the paper counts them
    width, vector = _WIDTH.search(opcode), _VECTOR.search(opcode)
    bits = int(width[1]) if width and width[1] else 32
    return bits / 8 * (int(vector[1]) if vector else 1)


def ptx_features(
    ptx: str,
    grid: Sequence[int],
    block: Sequence[int],
    trip_counts: Mapping[str, float] | None = None,
    kernel: str | None = None,
) -> dict[str, float]:
    """The twelve numbers of a kernel from its PTX text, as a compiler writes it.

    Every branch that is not a loop counts as not taken: the figures are those of a thread that does all the work.

    Args:
        ptx: text of the module.
        grid: thread blocks along each axis.
        block: threads of a block along each axis.
        trip_counts: how often the body of each loop runs per entry, by the label of its first instruction.
        kernel: which entry; needed when there are several.

    Raises:
        ConfigError: no such kernel, sizes that are not positive, or a loop without a trip count (the message names
            its label).

    >>> text = ".entry k() { mov.u32 %r1, 0; $L: ld.global.f32 %f1, [%rd1]; @%p1 bra $L; ret; }"
    >>> ptx_features(text, (2,), (32,), {"$L": 10})["global_bytes"]
    2560.0
    """
    return grouped(ptx_counts(ptx, grid, block, trip_counts, kernel), grid, block)


def ptx_counts(
    ptx: str,
    grid: Sequence[int],
    block: Sequence[int],
    trip_counts: Mapping[str, float] | None = None,
    kernel: str | None = None,
) -> dict[str, float]:
    """Executed instructions by opcode, all threads together; arguments as for `ptx_features`."""
    for name, sizes in (("grid", grid), ("block", block)):
        if not sizes or any(size < 1 for size in sizes):
            raise ConfigError(f"{name} = {tuple(sizes)}; allowed are sizes from 1")
    opcodes, labels, branches = _instructions(_body(ptx, kernel))
    threads = float(prod(grid) * prod(block))
    often = _repeats(len(opcodes), labels, branches, dict(trip_counts or {}))
    counts: dict[str, float] = {}
    for opcode, times in zip(opcodes, often, strict=True):
        counts[opcode] = counts.get(opcode, 0.0) + threads * times
    return counts


def _body(ptx: str, kernel: str | None) -> str:
    text = _COMMENT.sub(" ", ptx)
    starts = {found[1]: found.end() for found in _ENTRY.finditer(text)}
    if kernel is None and len(starts) != 1:
        raise ConfigError(f"the PTX text has {len(starts)} kernels ({', '.join(starts) or 'no .entry'}); name one")
    name = kernel or next(iter(starts))
    if name not in starts:
        raise ConfigError(f"no kernel {name!r} in the PTX text; {did_you_mean(name, starts)}")
    start = text.find("{", starts[name])
    depth, at = 0, start
    while at >= 0 and at < len(text):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return text[start + 1 : at - 1]
    raise ConfigError(f"kernel {name!r}: its braces do not close; the PTX text is cut off")


def _instructions(body: str) -> tuple[list[str], dict[str, int], list[tuple[int, str]]]:
    """Opcodes in order, position of each label, and each branch with its label."""
    opcodes: list[str] = []
    labels: dict[str, int] = {}
    branches: list[tuple[int, str]] = []
    lines = (line for line in body.splitlines() if not line.lstrip().startswith((".loc", ".file")))
    for part in re.split(r"[;{}]", "\n".join(lines)):
        text = part.strip()
        while label := _LABEL.match(text):
            labels[label[1]] = len(opcodes)
            text = text[label.end() :].strip()
        words = text.split()
        if words and words[0].startswith("@"):
            words = words[1:]
        if not words or words[0].startswith(".") or not re.fullmatch(r"[a-z][\w.:]*", words[0]):
            continue
        if words[0].startswith("bra"):
            branches.append((len(opcodes), words[-1]))
        opcodes.append(words[0])
    return opcodes, labels, branches


def _repeats(
    n: int, labels: Mapping[str, int], branches: Sequence[tuple[int, str]], trips: dict[str, float]
) -> list[float]:
    """How often a thread executes each instruction: the product of the trip counts of the loops around it."""
    loops: dict[str, int] = {}  # label of the first instruction to position of the last jump back
    for at, label in branches:
        if label in labels and labels[label] <= at:
            loops[label] = max(at, loops.get(label, at))
    for label in loops:
        if label not in trips:
            raise ConfigError(f"loop {label} has no trip count; give trip_counts={{{label!r}: ...}}")
        if not 0 <= trips[label] < float("inf"):
            raise ConfigError(f"trip_counts[{label!r}] = {trips[label]}; allowed are numbers from 0")
    for label in trips:
        if label not in loops:
            raise ConfigError(f"trip_counts names {label!r}, which is no loop; {did_you_mean(label, loops)}")
    often = [1.0] * n
    for label, last in loops.items():
        for at in range(labels[label], last + 1):
            often[at] *= trips[label]
    return often
