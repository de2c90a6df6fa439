"""Dense layers in whole numbers against products of matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError, TargetError
from netfit.kernels import linear, toolchain
from netfit.kernels._compile import compile_c
from netfit.kernels._ops import source
from netfit.kernels.linear import Codes, IntegerLinear

pytestmark = pytest.mark.skipif(toolchain() is None, reason="no C compiler")


@pytest.fixture(scope="module", params=["native", "any processor"])
def build(request):
    """The library of this processor, and the one of processors without long vectors."""
    if request.param == "native":
        yield
        return
    flags = ("-mno-avx512vnni", "-mno-avx512bw", "-mno-avx512vpopcntdq")
    try:
        plain = compile_c(source("tile.h", "linear.c"), "linear", flags)
    except TargetError:
        pytest.skip("this compiler has no such flags")
    plain.linear.argtypes = linear._library().linear.argtypes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_library", lambda: plain)
        assert not linear._library().linear_expands_bits()
        yield


def codes_of(x, scale, zero, top):
    return ((x / scale).round() + zero).clamp(0, top)


@settings(max_examples=40)
@given(
    n=st.integers(0, 37), k=st.integers(1, 300), rows=st.integers(1, 150), weights=st.sampled_from(["bits", "bytes"]),
    top=st.sampled_from([1, 3, 15, 255]), zero=st.integers(0, 9), relu=st.booleans(), early=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_sums_are_exact(build, n, k, rows, weights, top, zero, relu, early, seed):
    g = torch.Generator().manual_seed(seed)
    weight = torch.randint(-127, 128, (rows, k), generator=g)
    weight = torch.where(weight >= 0, 1, -1) if weights == "bits" else weight
    x, gain, shift = 9 * torch.randn(n, k, generator=g), torch.rand(rows, generator=g), torch.randn(rows, generator=g)
    first = Codes(0.25, 100, 200) if early else None
    layer = IntegerLinear(weight.to(torch.int8), gain, shift, Codes(0.7, zero, top), relu, first)
    seen = (codes_of(x, 0.25, 100, 200) - 100) * 0.25 if early else x
    sums = codes_of(seen, torch.tensor(0.7), zero, top).double() @ weight.double().T
    expected = sums.float() * gain + shift
    assert torch.equal(layer(x), expected.clamp(min=0) if relu else expected)


def test_codes_are_rounded_to_even_after_a_true_division(build):
    scale = 0.1
    x = (torch.arange(64) + 0.5) * torch.tensor(scale)
    layer = IntegerLinear(torch.eye(64).to(torch.int8), torch.ones(64), torch.zeros(64), Codes(scale, 0, 255))
    assert torch.equal(layer(x[None])[0], (x / torch.tensor(scale)).round())


def test_rows_do_not_depend_on_each_other(build):
    weight = torch.where(torch.rand(40, 70, generator=torch.Generator().manual_seed(0)) > 0.5, 1, -1).to(torch.int8)
    for top in (1, 255):
        layer = IntegerLinear(weight, torch.ones(40), torch.zeros(40), Codes(0.1, 3, top))
        x = torch.randn(19, 70, generator=torch.Generator().manual_seed(1))
        assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


SIGNS = torch.ones(2, 3, dtype=torch.int8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntegerLinear(SIGNS.float(), torch.ones(2), torch.ones(2), Codes(1, 0, 1)), "give int8"),
        (lambda: IntegerLinear(SIGNS, torch.ones(3), torch.ones(2), Codes(1, 0, 1)), r"gain of shape \(3,\)"),
        (lambda: IntegerLinear(SIGNS, torch.ones(2), torch.ones(2), Codes(0, 0, 1)), "give a scale > 0"),
        (lambda: IntegerLinear(SIGNS, torch.ones(2), torch.ones(2), Codes(1, 0, 256)), "at most 255"),
        (lambda: IntegerLinear(SIGNS, torch.ones(2), torch.ones(2), Codes(1, 0, 1))(torch.ones(4, 2)), r"\(n, 3\)"),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
