"""The blocked kernels against torch, on sizes that leave remainders everywhere."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d as torch_conv2d

from netfit.errors import ConfigError
from netfit.kernels import toolchain
from netfit.kernels.dense import (
    ConvShape,
    Prepared,
    blocking,
    channel_words,
    conv2d,
    conv2d_planes,
    gemm,
    naive,
)

pytestmark = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")
steps = st.fixed_dictionaries(
    {"stride": st.integers(1, 3), "padding": st.integers(0, 2), "dilation": st.integers(1, 2)}
)
taps = st.sampled_from([(1, 1), (2, 2), (3, 3), (1, 3)])
channels, rows = st.sampled_from([1, 3, 4, 31, 33, 64, 70]), st.sampled_from([1, 7, 8, 9, 20])
seeds = st.integers(0, 2**31)


def operands(seed, precision, batch, channels, rows, taps, height=8, width=19):
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, channels, height, width), (rows, channels, *taps)
    if precision == "fp32":
        return tuple(torch.randn(s, generator=generator) for s in shapes)
    if precision == "int8":
        return tuple(torch.randint(-128, 128, s, dtype=torch.int8, generator=generator) for s in shapes)
    x = torch.randint(0, 256, shapes[0], dtype=torch.uint8, generator=generator)
    return x, 2 * torch.randint(0, 2, shapes[1], dtype=torch.int8, generator=generator) - 1


def shape_of(x, w, steps):
    return ConvShape(len(w), x.shape[1], *x.shape[2:], *w.shape[2:], **steps, batch=len(x))


def exact(x, w, steps):
    return torch_conv2d(x.double(), w.double(), **steps)


@given(seeds, st.integers(1, 2), channels, rows, taps, steps)
@settings(max_examples=20)
def test_fp32_convolution(seed, batch, channels, rows, taps, steps):
    x, w = operands(seed, "fp32", batch, channels, rows, taps)
    torch.testing.assert_close(conv2d(x, w, **steps).double(), exact(x, w, steps), rtol=1e-4, atol=1e-4)


@given(seeds, st.integers(1, 2), channels, rows, taps, steps)
@settings(max_examples=20)
def test_int8_convolution_is_exact(seed, batch, channels, rows, taps, steps):
    x, w = operands(seed, "int8", batch, channels, rows, taps)
    assert torch.equal(conv2d(x, w, **steps).double(), exact(x, w, steps))
    kernel = Prepared(shape_of(x, w, steps), w, precision="int8", packed=True)
    assert torch.equal(kernel(channel_words(x, "int8")).double(), exact(x, w, steps))


@given(seeds, st.integers(1, 8), channels, rows, taps, steps)
@settings(max_examples=20)
def test_bit_serial_convolution_is_exact(seed, planes, channels, rows, taps, steps):
    x, w = operands(seed, "bits", 2, channels, rows, taps)
    codes = x & (2**planes - 1)
    assert torch.equal(conv2d_planes(x, w, planes, **steps).double(), exact(codes, w, steps))
    kernel = Prepared(shape_of(x, w, steps), w, precision="bits", packed=True)
    assert torch.equal(kernel(channel_words(x)).double(), exact(x & 1, w, steps))


@pytest.mark.parametrize("sizes", [(333, 517, 129), (1, 1, 1), (8, 48, 600), (12, 960, 96), (1000, 1, 512)])
def test_products_of_any_size(sizes):
    m, n, k = sizes
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
    torch.testing.assert_close(gemm(a, b).double(), a.double() @ b.double(), rtol=1e-4, atol=1e-3)
    a, b = (torch.randint(-128, 128, s, dtype=torch.int8, generator=generator) for s in ((m, k), (k, n)))
    assert torch.equal(gemm(a, b).double(), a.double() @ b.double())


def test_extreme_int8_values_do_not_saturate():
    a = torch.full((9, 512), -128, dtype=torch.int8)
    assert gemm(a, a.T.contiguous()).unique().tolist() == [512 * 128 * 128]


def test_bias_and_memory_of_the_caller():
    x, w = operands(0, "fp32", 1, 5, 9, (3, 3))
    bias, out = torch.arange(9.0), torch.empty(1, 9, 6, 17)
    kernel = Prepared(ConvShape(9, 5, 8, 19, 3, 3), w, bias)
    assert kernel(x, out) is out
    torch.testing.assert_close(out, torch_conv2d(x, w, bias), rtol=1e-4, atol=1e-4)
    first = out.clone()
    assert torch.equal(kernel(x), first)  # nothing of the call before is left


@given(seeds, channels, rows, taps, steps)
@settings(max_examples=20)
def test_the_plain_nest_computes_the_same(seed, channels, rows, taps, steps):
    for precision in ("fp32", "int8"):
        x, w = operands(seed, precision, 2, channels, rows, taps)
        found = naive(shape_of(x, w, steps), x, w)()
        torch.testing.assert_close(found.double(), exact(x, w, steps), rtol=1e-4, atol=1e-4)
    x, w = operands(seed, "bits", 2, channels, rows, taps)
    common = naive(shape_of(x, w, steps), channel_words(x), channel_words((w > 0).to(torch.uint8)))()
    assert torch.equal(common.double(), exact(x & 1, w > 0, steps))


def test_operators_have_shapes_for_tracing():
    x, w = operands(0, "int8", 2, 6, 4, (3, 3))
    ops = torch.ops.netfit
    torch.library.opcheck(ops.conv2d, (x, w, 2, 1, 1), test_utils=("test_schema", "test_faketensor"))
    x, w = operands(0, "bits", 2, 6, 4, (3, 3))
    torch.library.opcheck(ops.conv2d_planes, (x, w, 2, 2, 1, 1), test_utils=("test_schema", "test_faketensor"))


def test_without_a_compiler_the_references_answer(monkeypatch):
    x, w = operands(0, "int8", 1, 6, 4, (3, 3))
    codes, signs = operands(0, "bits", 1, 6, 4, (3, 3))
    native = conv2d(x, w), conv2d_planes(codes, signs, 3)
    monkeypatch.setenv("NETFIT_CC", "none")
    assert torch.equal(conv2d(x, w), native[0]) and torch.equal(conv2d_planes(codes, signs, 3), native[1])


@pytest.mark.parametrize("precision", ["fp32", "int8", "bits"])
def test_blocks_fit_the_caches(precision, monkeypatch):
    from netfit.kernels.dense import _shape

    for caches in ({"l1": 32 << 10, "l2": 512 << 10}, {"l1": 16 << 10}, {"l1": 48 << 10, "l2": 2 << 20}):
        monkeypatch.setattr(_shape, "caches", lambda caches=caches: caches)
        b = blocking(ConvShape(512, 512, 56, 56, 3, 3, padding=1), precision)
        panel = b.tile_vectors * b.lanes
        assert 4 * b.kc * panel <= caches["l1"] and b.mc % b.tile_rows == 0 and b.nc % panel == 0
        assert 4 * b.kc * max(b.mc, b.nc) <= caches.get("l2", 8 * caches["l1"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvShape(0, 3, 8, 8), "rows = 0 of a convolution: allowed are whole numbers from 1"),
        (lambda: ConvShape(4, 3, 8, 8, 9, 9), "a kernel of 9x9 with dilation 1 does not fit into 8x8"),
        (lambda: conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 2, 3, 3)), r"input \(1, 3, 8, 8\) and weight"),
        (lambda: gemm(torch.ones(2, 3), torch.ones(2, 3)), r"a product of \(2, 3\) and \(2, 3\)"),
        (lambda: gemm(torch.ones(2, 3), torch.ones(3, 2, dtype=torch.int8)), "both must be float32, or both int8"),
        (lambda: Prepared(ConvShape(4, 3, 8, 8), torch.ones(4, 3, 3, 3)), "fp32 here takes"),
        (lambda: Prepared(ConvShape(1, 1, 1, 1), torch.ones(1, 1, 1, 1), precision="int4"), "did you mean 'int8'"),
        (lambda: Prepared(ConvShape(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.ones(2)), "a bias of"),
        (lambda: Prepared(ConvShape(1, 1, 1, 1), torch.ones(1, 1, 1, 1), planes=2), "planes = 2 of fp32"),
        (lambda: Prepared(ConvShape(1, 1, 1, 1), torch.ones(1, 1, 1, 1))(torch.ones(1, 1, 1, 2)), "the input is"),
        (lambda: naive(ConvShape(1, 1, 1, 1), torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 1)), "do not fit"),
        (lambda: conv2d_planes(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)), "expected uint8, 1 to 8, int8"),
    ],
)
def test_bad_input_names_value_and_remedy(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
