"""Packed storage: exact packing, bounded and unbiased rounding."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.quant import dequantize_groups, pack_bits, quantize_groups, unpack_bits

bits = st.sampled_from([1, 2, 4, 8])
seeds = st.integers(0, 2**31)


@given(bits, st.integers(0, 300), seeds)
def test_unpack_undoes_pack(bits: int, n: int, seed: int) -> None:
    codes = torch.randint(0, 2**bits, (n,), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack_bits(codes, bits)
    assert packed.numel() == -(-n * bits // 8)
    assert torch.equal(unpack_bits(packed, bits, n), codes)


def test_low_bits_come_first() -> None:
    assert pack_bits(torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 1], dtype=torch.uint8), 1).tolist() == [1, 1]
    assert pack_bits(torch.tensor([0xA, 0xB, 0xC], dtype=torch.uint8), 4).tolist() == [0xBA, 0x0C]


@given(bits, st.integers(0, 700), st.sampled_from([8, 40, 256]), seeds)
def test_error_is_below_a_step_and_bytes_are_those_promised(bits: int, n: int, group_size: int, seed: int) -> None:
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    stored = quantize_groups(x, bits, group_size, seed)
    back = dequantize_groups(stored)
    step = stored.scale.repeat_interleave(group_size)[:n]
    assert ((back - x).abs() <= step * 1.0001).all()
    assert stored.nbytes == -(-n * bits // 8) + 8 * -(-n // group_size)


def test_unbiased_with_at_most_a_quarter_step_squared_of_variance() -> None:
    x = torch.linspace(-1, 1, 64).repeat(3000)
    stored = quantize_groups(x, bits=2, group_size=64, seed=1)
    error = (dequantize_groups(stored) - x).view(3000, 64)
    step = 2 / 3
    assert (error.mean(0).abs() < 4.5 * step / 2 / 3000**0.5).all()
    assert (error.square().mean(0) <= step**2 / 4 * 1.1).all()


def test_shape_dtype_seed_and_constants_are_kept() -> None:
    x = torch.full((3, 5, 7), 0.1, dtype=torch.bfloat16)
    back = dequantize_groups(quantize_groups(x, bits=1))
    assert back.dtype == torch.bfloat16 and torch.equal(back, x)
    y = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    codes = [quantize_groups(y, 4, seed=seed).codes for seed in (0, 0, 1)]
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_broken_group_decodes_to_nan_and_spoils_no_other(odd: float) -> None:
    x = torch.linspace(0, 1, 24)
    x[9] = odd
    back = dequantize_groups(quantize_groups(x, bits=8, group_size=8))
    assert back.isnan().tolist() == [False] * 8 + [True] * 8 + [False] * 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_bits(torch.zeros(3, dtype=torch.uint8), 3), "bits=3"),
        (lambda: pack_bits(torch.tensor([4], dtype=torch.uint8), 2), "code 4"),
        (lambda: unpack_bits(torch.zeros(3, dtype=torch.uint8), 4, 7), "expected 4"),
        (lambda: quantize_groups(torch.zeros(9), 4, 12), "group_size=12"),
        (lambda: quantize_groups(torch.zeros(9), 5), "bits=5"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
