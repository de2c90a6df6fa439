"""The Triton kernel in Triton's interpreter, which needs no GPU, beside the torch reference."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from netfit.kernels import blocks

absent = importlib.util.find_spec("triton") is None

SCRIPT = """
import torch
from netfit.kernels import blocks
from netfit.memory.codecs import BlockSparse, weight_gradient

for rows, features, outputs, size in ((40, 24, 10, 8), (37, 30, 70, 8), (64, 32, 5, 16)):
    draw = torch.Generator().manual_seed(rows)
    x, gradient = torch.randn(rows, features, generator=draw), torch.randn(rows, outputs, generator=draw)
    values, at = BlockSparse(size, 0.4).pack(x).tensors
    high, wide = -(-rows // size), -(-features // size)
    starts = torch.searchsorted(at // high, torch.arange(wide + 1, dtype=torch.int32))
    found = blocks.weight_gradient(gradient, values, at, starts, features)
    torch.testing.assert_close(found, weight_gradient(gradient, values, at, features), rtol=1e-5, atol=1e-5)
"""


@pytest.mark.skipif(absent, reason="triton is not installed: it comes with torch's CUDA build")
def test_the_kernel_is_the_reference() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr[-2000:]


def test_main_memory_takes_the_reference() -> None:
    assert not blocks.ready(torch.zeros(3, 8, 8), 8)
