"""The instruction set: rows of plain numbers, their 128-bit words, and a readable listing.

A program is a structured array with one row per instruction; executor, cycle model, encoder and listing read the
same rows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError

from ._config import MEMORIES

__all__ = ["ALU", "DTYPE", "FINISH", "GEMM", "LOAD", "STORE", "decode", "disassemble", "encode", "uop"]

LOAD, STORE, GEMM, FINISH, ALU = range(5)
OPCODES = ("LOAD", "STORE", "GEMM", "FINISH", "ALU")
ALU_OPS = ("MIN", "MAX", "ADD", "SHR", "MUL")
TOKENS = ("pop_prev", "pop_next", "push_prev", "push_next")

_HEAD = (("opcode", 3), *((name, 1) for name in TOKENS))
_MEMORY = (
    (*_HEAD, ("mem", 3), ("sram", 16), ("dram", 32)),
    (("y_size", 16), ("x_size", 16), ("x_stride", 16), ("y_pad0", 4), ("y_pad1", 4), ("x_pad0", 4), ("x_pad1", 4)),
)
_LOOPS = (*_HEAD, ("reset", 1), ("uop_begin", 13), ("uop_end", 14), ("iter_out", 14), ("iter_in", 14))
_PRODUCT = (
    _LOOPS,
    (("acc_out", 11), ("acc_in", 11), ("inp_out", 11), ("inp_in", 11), ("wgt_out", 10), ("wgt_in", 10)),
)
_VECTOR = (
    _LOOPS,
    (("acc_out", 11), ("acc_in", 11), ("inp_out", 11), ("inp_in", 11), ("alu_op", 3), ("use_imm", 1), ("imm", 16)),
)
_LAYOUT = {LOAD: _MEMORY, STORE: _MEMORY, GEMM: _PRODUCT, FINISH: (_HEAD, ()), ALU: _VECTOR}
_NAMES = (
    "opcode", *TOKENS, "mem", "sram", "dram", "y_size", "x_size", "x_stride", "y_pad0", "y_pad1", "x_pad0", "x_pad1",
    "reset", "uop_begin", "uop_end", "iter_out", "iter_in", "acc_out", "acc_in", "inp_out", "inp_in", "wgt_out",
    "wgt_in", "alu_op", "use_imm", "imm",
)  # fmt: skip
DTYPE = np.dtype([(name, np.int32) for name in _NAMES])  # `Insn` of vta.c
Rows = NDArray[Any]


def uop(acc: Any, inp: Any, wgt: Any) -> NDArray[np.uint32]:
    """Micro-ops: 11 bits of accumulator, 11 of input, 10 of weight, from the lowest bit on."""
    parts = (np.asarray(x, np.uint32) for x in np.broadcast_arrays(acc, inp, wgt))
    a, i, w = parts
    return (a | i << np.uint32(11) | w << np.uint32(22)).astype(np.uint32)


def check_fields(rows: Rows, first: int = 0) -> None:
    """Every field fits its bits; ``first`` is the number of the first row.

    Raises:
        ConfigError: one does not; the message names instruction, field and range.
    """
    if len(rows) and not ((rows["opcode"] >= LOAD) & (rows["opcode"] <= ALU)).all():
        at = int(np.argmax((rows["opcode"] < LOAD) | (rows["opcode"] > ALU)))
        raise ConfigError(f"instruction {first + at} has opcode {rows['opcode'][at]}: allowed are 0 to 4")
    for opcode, words in _LAYOUT.items():
        where = np.flatnonzero(rows["opcode"] == opcode)
        for name, bits in (field for word in words for field in word):
            values = rows[name][where]
            low, high = (-(1 << 15), (1 << 15) - 1) if name == "imm" else (0, min((1 << bits) - 1, 2**31 - 1))
            wrong = (values < low) | (values > high)
            if wrong.any():
                i = int(np.argmax(wrong))
                raise ConfigError(
                    f"instruction {first + where[i]} ({OPCODES[opcode]}): {name} = {values[i]} does not fit "
                    f"{bits} bits (allowed are {low} to {high})"
                )


def encode(rows: Rows) -> NDArray[np.uint64]:
    """128-bit instructions as the hardware fetches them.

    Args:
        rows: structured array of instructions.

    Returns:
        uint64 (instructions, 2), low half first.

    Raises:
        ConfigError: a field does not fit its bits.
    """
    check_fields(rows)
    out = np.zeros((len(rows), 2), np.uint64)
    for opcode, words in _LAYOUT.items():
        where = rows["opcode"] == opcode
        for half, word in enumerate(words):
            shift = 0
            for name, bits in word:
                value = rows[name][where].astype(np.int64) & ((1 << bits) - 1)
                out[where, half] |= value.astype(np.uint64) << np.uint64(shift)
                shift += bits
    return out


def decode(words: NDArray[np.uint64]) -> Rows:
    """Instructions back from their 128 bits.

    Args:
        words: uint64 (instructions, 2).

    Raises:
        ConfigError: another shape or type, an unknown opcode, or an address beyond 2^31 words.
    """
    if words.ndim != 2 or words.shape[1] != 2 or words.dtype != np.uint64:
        raise ConfigError(f"a program of {words.dtype} {words.shape}: expected uint64 (instructions, 2)")
    rows = np.zeros(len(words), DTYPE)
    rows["opcode"] = (words[:, 0] & np.uint64(7)).astype(np.int32)
    for opcode, halves in _LAYOUT.items():
        where = rows["opcode"] == opcode
        for half, word in enumerate(halves):
            shift = 0
            for name, bits in word:
                value = (words[where, half] >> np.uint64(shift) & np.uint64((1 << bits) - 1)).astype(np.int64)
                if name == "imm":
                    value -= (value >> 15) << 16
                rows[name][where] = value.astype(np.int32)
                shift += bits
    check_fields(rows)
    return rows


def disassemble(rows: Rows) -> list[str]:
    """One line per instruction.

    >>> row = np.zeros(1, DTYPE)
    >>> row["opcode"], row["mem"], row["y_size"], row["x_size"], row["push_next"] = LOAD, 2, 3, 4, 1
    >>> disassemble(row)[0].split()
    ['0', 'LOAD', 'inp[0]', '<-', 'dram[0]', '3x4', 'stride', '0', 'push_next']
    """
    lines = []
    for i, row in enumerate(rows):
        tokens = " ".join(name for name in TOKENS if row[name])
        lines.append(f"{i:6d}  {_body(row):70s} {tokens}".rstrip())
    return lines


def _body(row: Any) -> str:
    code = OPCODES[row["opcode"]]
    if row["opcode"] in (LOAD, STORE):
        memory, arrow = MEMORIES[row["mem"]] if row["mem"] < len(MEMORIES) else "?", "<-" if code == "LOAD" else "->"
        pads = [int(row[name]) for name in ("y_pad0", "y_pad1", "x_pad0", "x_pad1")]
        padded = f" pad {pads[0]},{pads[1]},{pads[2]},{pads[3]}" if any(pads) else ""
        size = f"{row['y_size']}x{row['x_size']} stride {row['x_stride']}"
        return f"{code} {memory}[{row['sram']}] {arrow} dram[{row['dram']}] {size}{padded}"
    if row["opcode"] == FINISH:
        return code
    loops = f"uop {row['uop_begin']}..{row['uop_end']} x {row['iter_out']} x {row['iter_in']}"
    if row["opcode"] == ALU:
        operand = f"imm {row['imm']}" if row["use_imm"] else "acc"
        return f"{code} {ALU_OPS[row['alu_op']] if row['alu_op'] < len(ALU_OPS) else '?'} {operand} {loops}"
    return f"{code}{' reset' if row['reset'] else ''} {loops}"
