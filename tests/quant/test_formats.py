"""Powers of two, logarithmic, binary, ternary and fixed point."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.quant import Binary, FixedPoint, Format, Logarithmic, PowerOfTwo, Ternary

seeds = st.integers(0, 2**31)
FORMATS: list[Format] = [
    PowerOfTwo(2),
    PowerOfTwo(4),
    PowerOfTwo(4, axis=0),
    Logarithmic(1),
    Logarithmic(4),
    Binary(),
    Binary(axis=0),
    Ternary(),
    Ternary(axis=0),
    FixedPoint(2, 2),
    FixedPoint(3, -1),
    FixedPoint(-1, 4),
]


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("format", FORMATS, ids=str)
@given(seed=seeds)
def test_idempotent_monotone_and_same_shape(format: Format, seed: int) -> None:
    x = randn(seed, 3, 70).sort(-1).values
    y = format(x)
    assert y.shape == x.shape and y.dtype == x.dtype
    assert (y.diff(dim=-1) >= 0).all()
    # A mean of equal numbers, and exp2 after log2, may round in the last place.
    torch.testing.assert_close(format(y), y, rtol=1e-6, atol=0)


@pytest.mark.parametrize("format", [PowerOfTwo, Binary, Ternary])
@given(seed=seeds)
def test_per_channel_equals_per_slice(format: Any, seed: int) -> None:
    x = randn(seed, 4, 3, 5)
    expected = torch.stack([format()(part) for part in x.unbind(1)], 1)
    torch.testing.assert_close(format(axis=1)(x), expected, rtol=1e-6, atol=0)


@given(st.integers(2, 6), seeds)
def test_power_of_two_is_the_nearest_representable_value(bits: int, seed: int) -> None:
    x = randn(seed, 200) * 10 ** float(randn(seed + 1, 1))
    y = PowerOfTwo(bits)(x)
    mantissa, exponent = torch.frexp(y[y != 0].abs())
    assert (mantissa == 0.5).all()
    top = int(torch.frexp(x.abs().max() * 4 / 3).exponent) - 1
    exponents = range(top - (2 ** (bits - 1) - 2), top + 1)
    assert set((exponent - 1).tolist()) <= set(exponents)
    values = torch.tensor([0.0] + [sign * 2.0**e for e in exponents for sign in (-1, 1)])
    nearest = (x[:, None] - values).abs().min(1).values
    torch.testing.assert_close((y - x).abs(), nearest, rtol=1e-5, atol=1e-12)


@given(st.integers(1, 8), seeds)
def test_logarithmic_error_is_half_a_step_in_octaves(bits: int, seed: int) -> None:
    format = Logarithmic(bits, top=0.5, octaves=8.0)
    x = torch.exp2(torch.rand(300, generator=torch.Generator().manual_seed(seed)) * 8 - 7.5)
    y = format(x)
    assert ((y.log2() - x.log2()).abs() <= 4.0 / (2**bits - 1) + 1e-5).all()
    assert len(y.unique()) <= 2**bits
    low = format(torch.tensor([0.0, -1.0, 1e-30]))
    torch.testing.assert_close(low, torch.full((3,), 2.0**-7.5))


def test_logarithmic_gradient_is_straight_through_in_log2() -> None:
    x = torch.tensor([0.01, 0.3, 1.0, 5.0, -1.0], requires_grad=True)
    y = Logarithmic(4)(x)
    y.sum().backward()
    assert x.grad is not None
    inside = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    torch.testing.assert_close(x.grad, inside * y.detach() / x.detach())


def test_binary_scale_is_the_mean_magnitude() -> None:
    w = randn(0, 8, 30)
    torch.testing.assert_close(Binary()(w).abs(), w.abs().mean().expand(8, 30))
    torch.testing.assert_close(Binary(axis=0)(w)[:, 0].abs(), w.abs().mean(1))
    assert Binary()(torch.tensor([0.0, -0.0, 3.0]))[0] > 0


def test_ternary_keeps_what_exceeds_its_threshold() -> None:
    w = randn(0, 500)
    y = Ternary()(w)
    kept = w.abs() > 0.7 * w.abs().mean()
    assert torch.equal(y != 0, kept)
    torch.testing.assert_close(y[kept].abs(), w[kept].abs().mean().expand(int(kept.sum())))
    assert torch.equal(Ternary()(torch.zeros(5)), torch.zeros(5))


@pytest.mark.parametrize(
    ("format", "passes"),
    [
        (Binary(), lambda x: (x.abs() <= 1).float()),
        (Ternary(), lambda x: (x.abs() <= 1).float()),
        (PowerOfTwo(), torch.ones_like),
        (FixedPoint(1, 2), torch.ones_like),
    ],
    ids=["binary", "ternary", "power of two", "fixed point"],
)
def test_straight_through_gradient(format: Format, passes: Any) -> None:
    x = randn(1, 200).requires_grad_()
    upstream = randn(2, 200)
    format(x).backward(upstream)
    assert x.grad is not None
    assert torch.equal(x.grad, upstream * passes(x.detach()))


@given(st.integers(-3, 6), st.integers(-3, 8), seeds)
def test_fixed_point_grid_and_limits(int_bits: int, frac_bits: int, seed: int) -> None:
    if not 1 <= int_bits + frac_bits <= 16:
        with pytest.raises(ConfigError, match="choose 1 to 16"):
            FixedPoint(int_bits, frac_bits)
        return
    x = randn(seed, 300) * 2.0**int_bits
    y = FixedPoint(int_bits, frac_bits)(x)
    step, most = 2.0**-frac_bits, 2.0**int_bits - 2.0**-frac_bits
    assert y.min() >= 0 and y.max() <= most
    assert torch.equal(y, (y / step).round() * step)
    inside = (x >= 0) & (x <= most)
    assert ((y - x).abs()[inside] <= step / 2).all()


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_works_under_torch_func(format: Format) -> None:
    x = randn(3, 4, 6)[:, None]
    grads = torch.func.vmap(torch.func.grad(lambda part: format(part).square().sum()))(x)
    for part, grad in zip(x, grads, strict=True):
        leaf = part.clone().requires_grad_()
        format(leaf).square().sum().backward()
        torch.testing.assert_close(grad, leaf.grad)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_empty_tensors_and_low_precision(format: Format) -> None:
    assert format(torch.empty(0, 3)).shape == (0, 3)
    y = format(randn(0, 4, 4).bfloat16())
    assert y.dtype == torch.bfloat16 and y.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (PowerOfTwo, {"bits": 1}),
        (PowerOfTwo, {"bits": 9}),
        (Logarithmic, {"bits": 0}),
        (Logarithmic, {"octaves": math.nan}),
    ],
    ids=str,
)
def test_bad_formats_are_refused(kind: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="choose"):
        kind(**arguments)


def test_codes_of_the_logarithmic_grid_name_its_values():
    x = torch.rand(200, generator=torch.Generator().manual_seed(0)) * 3
    for bits in (1, 3, 4, 8):
        grid = Logarithmic(bits=bits)
        codes = grid.codes(x)
        assert codes.dtype == torch.uint8 and int(codes.max()) < 2**bits
        assert torch.equal(grid.grid()[codes.long()], grid(x))
        assert torch.equal(grid.codes(grid(x)), codes)
