"""The product of a block-sparse matrix's transpose with a dense one, in Triton: weight gradients on a GPU.

Only the kernel is here; `netfit.memory.codecs.weight_gradient` is the torch reference that runs everywhere else.
"""

import functools
import importlib
import importlib.util
from typing import Any

from torch import Tensor

__all__ = ["ready", "weight_gradient"]

_WIDE = 64  # columns of the dense matrix that a program takes
tl: Any = None  # triton.language, once a kernel was asked for: Triton looks names up in the module


def ready(x: Tensor, size: int) -> bool:
    """Whether the kernel can take such blocks: on a CUDA device, of a size that is a power of two, Triton installed.

    Args:
        x: the blocks, or what they are cut from.
        size: rows and columns of a block.
    """
    return x.is_cuda and size & (size - 1) == 0 and importlib.util.find_spec("triton") is not None


def weight_gradient(gradient: Tensor, values: Tensor, at: Tensor, starts: Tensor, features: int) -> Tensor:
    """Gradient of a linear weight from the kept blocks of its input.

    Args:
        gradient: of the output, (rows, outputs).
        values: blocks of the input (kept, size, size), sorted by column of blocks.
        at: their places, int32: column * block rows + row.
        starts: first block of each column and the end of the last, integers (columns + 1,).
        features: columns of the input.

    Returns:
        (outputs, features), in the type of the gradient; sums are made in fp32.
    """
    gradient = gradient.contiguous()
    (rows, outputs), size = gradient.shape, values.shape[1]
    out = gradient.new_empty(outputs, features)
    grid = (-(-features // size), -(-outputs // _WIDE))
    _kernel()[grid](
        values.contiguous(), at, starts.long(), gradient, out, rows, outputs, -(-rows // size), features, size, _WIDE
    )
    return out


@functools.cache
def _kernel() -> Any:
    global tl
    triton, tl = importlib.import_module("triton"), importlib.import_module("triton.language")

    def columns(  # type: ignore[no-untyped-def]
        values, at, starts, gradient, out, rows, outputs, high, features,
        SIZE: tl.constexpr, WIDE: tl.constexpr,
    ):  # fmt: skip
        """One column of blocks against some columns of the gradient."""
        column = tl.program_id(0)
        across, inner = tl.program_id(1) * WIDE + tl.arange(0, WIDE), tl.arange(0, SIZE)
        total = tl.zeros((SIZE, WIDE), dtype=tl.float32)
        for n in range(tl.load(starts + column), tl.load(starts + column + 1)):
            row = tl.load(at + n) % high * SIZE + inner
            block = tl.load(values + n * SIZE * SIZE + inner[:, None] * SIZE + inner[None, :])
            there = (row[:, None] < rows) & (across[None, :] < outputs)
            part = tl.load(gradient + row[:, None] * outputs + across[None, :], mask=there, other=0.0)
            if SIZE < 16:  # smaller than what the matrix units take
                total += tl.sum(block[:, :, None].to(tl.float32) * part[:, None, :].to(tl.float32), 0)
            else:
                total += tl.dot(tl.trans(block), part, input_precision="ieee")
        feature = column * SIZE + inner
        inside = (feature[:, None] < features) & (across[None, :] < outputs)
        tl.store(out + across[None, :] * features + feature[:, None], total.to(out.dtype.element_ty), mask=inside)

    return triton.jit(columns)
