"""Every kernel against its torch reference, and the reference against the plain definition."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError, TargetError
from netfit.kernels import (
    binary_gemm,
    custom_op,
    pack_groups,
    pack_planes,
    pack_signs,
    planes_gemm,
    toolchain,
    unpack_groups,
)

needs_cc = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")
bits = st.sampled_from([1, 2, 4, 8])
sizes = st.integers(0, 40) | st.integers(60, 70) | st.integers(120, 300)
seeds = st.integers(0, 2**63 - 1)


def by_reference(op: Callable[..., Any], *args: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETFIT_CC", "none")
        return op(*args)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@needs_cc
@given(bits, sizes, st.sampled_from([8, 24, 64, 256, 264, 1024]), seeds)
@settings(max_examples=60)
def test_packed_groups_equal_the_reference_bit_for_bit(bits: int, n: int, group_size: int, seed: int) -> None:
    x = noise(seed, n * 5)
    ours, reference = pack_groups(x, bits, group_size, seed), by_reference(pack_groups, x, bits, group_size, seed)
    assert all(map(torch.equal, ours, reference))
    back = unpack_groups(*ours, bits, group_size, x.numel())
    assert torch.equal(back, by_reference(unpack_groups, *ours, bits, group_size, x.numel()))
    step = ours[2].repeat_interleave(group_size)[: x.numel()]
    assert bool(((back - x).abs() <= step * 1.0001).all())


@needs_cc
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_group_without_a_range_decodes_to_nan_and_spoils_no_other(odd: float) -> None:
    x = noise(0, 96)
    x[40], x[41] = odd, -3e38
    ours, reference = pack_groups(x, 4, 32, 1), by_reference(pack_groups, x, 4, 32, 1)
    assert all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(ours, reference, strict=True))
    back = unpack_groups(*ours, 4, 32, 96)
    assert torch.isnan(back[32:64]).all()
    assert torch.isfinite(back[:32]).all() and torch.isfinite(back[64:]).all()


def test_constant_and_denormal_groups_are_kept() -> None:
    x = torch.cat([torch.full((64,), 0.3), torch.tensor([0.0, 1e-44]).repeat(32)])
    back = unpack_groups(*pack_groups(x, 2, 64, 5), 2, 64, 128)
    assert torch.equal(back[:64], x[:64])
    assert torch.allclose(back[64:], x[64:], rtol=0, atol=1e-43)


def test_rounding_is_unbiased_and_follows_the_seed() -> None:
    x = torch.linspace(0, 1, 64).repeat(2000)
    back = unpack_groups(*pack_groups(x, 2, 64, 3), 2, 64, x.numel()).view(2000, 64)
    error = back.mean(0) - x[:64]
    # Each mean has a standard deviation of at most (1/3)/2/sqrt(2000).
    assert error.abs().max() < 4.5 * (1 / 6) / 2000**0.5
    assert torch.equal(pack_groups(x, 2, 64, 3)[0], pack_groups(x, 2, 64, 3)[0])
    assert not torch.equal(pack_groups(x, 2, 64, 3)[0], pack_groups(x, 2, 64, 4)[0])


@given(st.integers(0, 20), st.integers(0, 40), sizes, seeds)
@settings(max_examples=60)
def test_binary_gemm_is_the_product_of_signs(m: int, n: int, k: int, seed: int) -> None:
    x, y = noise(seed, m, k), noise(seed + 1, n, k)
    a, b = pack_signs(x), pack_signs(y)
    signs = [torch.where(t >= 0, 1.0, -1.0) for t in (x, y)]
    expected = (signs[0] @ signs[1].T).int()
    assert torch.equal(binary_gemm(a, b, k), expected)
    assert torch.equal(by_reference(binary_gemm, a, b, k), expected)


@given(st.integers(0, 20), st.integers(0, 40), sizes, st.integers(1, 8), seeds)
@settings(max_examples=60)
def test_planes_gemm_is_the_product_of_codes_and_signs(m: int, n: int, k: int, bits: int, seed: int) -> None:
    codes = torch.randint(0, 2**bits, (m, k), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    y = noise(seed, n, k)
    planes = pack_planes(codes, bits)
    assert torch.equal(planes, by_reference(pack_planes, codes, bits))
    expected = (codes.double() @ torch.where(y >= 0, 1.0, -1.0).double().T).int()
    assert torch.equal(planes_gemm(planes, pack_signs(y)), expected)
    assert torch.equal(by_reference(planes_gemm, planes, pack_signs(y)), expected)


def test_views_are_read_in_their_own_order() -> None:
    x = noise(0, 30, 50)
    assert torch.equal(pack_signs(x.T), pack_signs(x.T.contiguous()))
    assert torch.equal(pack_groups(x.T, 8, 64, 0)[0], pack_groups(x.T.contiguous(), 8, 64, 0)[0])


OPS = [
    ("pack_groups", lambda: (noise(0, 100), 4, 32, 9)),
    ("unpack_groups", lambda: (*pack_groups(noise(0, 100), 4, 32, 9), 4, 32, 100)),
    ("pack_planes", lambda: (torch.arange(70, dtype=torch.uint8).view(2, 35) % 4, 2)),
    ("binary_gemm", lambda: (pack_signs(noise(0, 3, 70)), pack_signs(noise(1, 5, 70)), 70)),
    ("planes_gemm", lambda: (pack_signs(noise(0, 3, 70))[None], pack_signs(noise(1, 5, 70)))),
]


@pytest.mark.parametrize(("name", "args"), OPS, ids=[name for name, _ in OPS])
def test_registration_passes_opcheck(name: str, args: Callable[[], tuple[Any, ...]]) -> None:
    torch.library.opcheck(getattr(torch.ops.netfit, name).default, args())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_groups(noise(0, 9), 3, 64, 0), "bits=3"),
        (lambda: pack_groups(noise(0, 9), 4, 12, 0), "group_size=12"),
        (lambda: unpack_groups(*pack_groups(noise(0, 9), 4, 8, 0), 4, 8, 90), "expected 45, 12 and 12"),
        (lambda: pack_planes(noise(0, 2, 2), 2), "uint8"),
        (lambda: binary_gemm(noise(0, 2, 2), noise(0, 2, 2), 2), "pack_signs"),
        (lambda: binary_gemm(pack_signs(noise(0, 2, 65)), pack_signs(noise(0, 2, 64)), 65), "expected"),
        (lambda: binary_gemm(pack_signs(noise(0, 2, 65)), pack_signs(noise(0, 2, 65)), 129), "k=129"),
        (lambda: planes_gemm(pack_signs(noise(0, 2, 65)), pack_signs(noise(0, 2, 65))), "planes"),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_bad_input_is_named_before_any_memory_is_read(
    call: Callable[[], Any], message: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setenv("NETFIT_CC", "none")
    with pytest.raises(ConfigError, match=message):
        call()


def test_when_the_build_fails_the_reference_runs_and_one_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETFIT_CC", raising=False)

    def broken() -> Callable[..., Any]:
        raise TargetError("cc cannot build test_fallback")

    def same(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    ops = [custom_op(f"test_same_{i}", same, native=broken, fake=torch.empty_like) for i in range(2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for op in ops * 2:
            assert op(torch.tensor(4.0)).item() == 4.0
    assert [str(w.message) for w in caught] == [
        "kernels run their slower torch reference: cc cannot build test_fallback"
    ]


def test_a_custom_op_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def halve(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    monkeypatch.delenv("NETFIT_CC", raising=False)
    op = custom_op("test_halve", halve, native=lambda: lambda x: x * 0.5 + 1, fake=torch.empty_like)
    assert op(torch.tensor(4.0)).item() == 3.0
    monkeypatch.setenv("NETFIT_CC", "none")
    assert op(torch.tensor(4.0)).item() == 2.0
    assert torch.ops.netfit.test_halve(torch.tensor(4.0, device="meta")).device.type == "meta"
