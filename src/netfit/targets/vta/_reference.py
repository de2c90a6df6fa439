"""What a program computes, in plain numpy: slow, and written from the instruction set alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._config import MEMORIES
from ._program import Program
from .isa import ALU, GEMM, LOAD, STORE

__all__ = ["execute_plainly"]

_ALU = (
    np.minimum,
    np.maximum,
    np.add,
    lambda a, b: np.where(b >= 0, a >> np.clip(b, 0, 31), a << np.clip(-b, 0, 31)),
    np.multiply,
)


def execute_plainly(program: Program, inp: NDArray[np.int8], wgt: NDArray[np.int8]) -> NDArray[np.int8]:
    """The reference of :func:`execute`; same arguments and result.

    >>> from netfit.targets.vta import Config, Conv, Knobs, lower
    >>> program = lower(Conv(2, 2, 1, 1), Knobs(2, 2, 1, 1), Config())
    >>> int(execute_plainly(program, np.full((4, 1, 16), 4, np.int8), np.full((1, 16, 16), 8, np.int8))[0, 0, 0])
    2
    """
    c = program.config
    shapes = {"uop": (), "wgt": (c.block_out, c.block_in), "inp": (c.batch, c.block_in), "acc": (c.batch, c.block_out)}
    sram: dict[str, Any] = {
        name: np.zeros((c.depth(name), *shape), np.uint32 if name == "uop" else np.int64 if name == "acc" else np.int8)
        for name, shape in shapes.items()
    }
    dram: dict[str, Any] = {"uop": program.uops, "wgt": wgt, "inp": inp}
    out = np.zeros((program.words["out"], c.batch, c.block_out), np.int8)
    for row in program.instructions:
        if row["opcode"] == LOAD:
            _load(row, sram[MEMORIES[row["mem"]]], dram[MEMORIES[row["mem"]]])
        elif row["opcode"] == STORE:
            for y in range(row["y_size"]):
                at, to = row["sram"] + y * row["x_size"], row["dram"] + y * row["x_stride"]
                out[to : to + row["x_size"]] = sram["acc"][at : at + row["x_size"]].astype(np.int8)
        elif row["opcode"] in (GEMM, ALU):
            _compute(row, sram)
    return out


def _load(row: Any, to: NDArray[Any], given: NDArray[Any]) -> None:
    rows, cols = row["y_pad0"] + row["y_size"] + row["y_pad1"], row["x_pad0"] + row["x_size"] + row["x_pad1"]
    block = np.zeros((rows, cols, *to.shape[1:]), to.dtype)
    for y in range(row["y_size"]):
        at = row["dram"] + y * row["x_stride"]
        block[row["y_pad0"] + y, row["x_pad0"] : row["x_pad0"] + row["x_size"]] = given[at : at + row["x_size"]]
    to[row["sram"] : row["sram"] + rows * cols] = block.reshape(-1, *to.shape[1:])


def _compute(row: Any, sram: dict[str, Any]) -> None:
    for o in range(row["iter_out"]):
        for i in range(row["iter_in"]):
            for u in sram["uop"][row["uop_begin"] : row["uop_end"]].tolist():
                a = (u & 2047) + o * row["acc_out"] + i * row["acc_in"]
                x = (u >> 11 & 2047) + o * row["inp_out"] + i * row["inp_in"]
                w = (u >> 22) + o * row["wgt_out"] + i * row["wgt_in"]
                acc = sram["acc"]
                if row["opcode"] == ALU:
                    value = np.int64(row["imm"]) if row["use_imm"] else acc[x]
                    acc[a] = _ALU[row["alu_op"]](acc[a], value).astype(np.int32)
                elif row["reset"]:
                    acc[a] = 0
                else:
                    acc[a] = (acc[a] + sram["inp"][x].astype(np.int64) @ sram["wgt"][w].T).astype(np.int32)
