"""The saturating product: against its definition step by step, its exact gradient, and what it costs in memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.kernels import ordered_matmul, toolchain

needs_cc = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")
sizes = st.integers(1, 40)
ranges = st.sampled_from([(-3.0, 3.0), (-2.0, 2.05), (-1.0, 6.0), (0.0, 4.0), (-128.0, 127.0)])
leaks = st.sampled_from([1.0, 0.9])


def by_definition(x: torch.Tensor, w: torch.Tensor, lo: float, hi: float, leak: float) -> torch.Tensor:
    v = x.new_zeros(len(x), w.shape[1])
    for k in range(len(w)):
        v = (leak * v + x[:, k, None] * w[k]).clamp(lo, hi)
    return v


def operands(b: int, k: int, n: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    x, w, grad = (torch.randn(shape, generator=draw, dtype=dtype) for shape in ((b, k), (k, n), (b, n)))
    return x.requires_grad_(), w.requires_grad_(), grad


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max().clamp_min(1))


@needs_cc
@given(sizes, sizes, sizes, ranges, leaks, st.integers(0, 2**31))
@settings(max_examples=60)
def test_value_and_gradient_equal_autograd_through_the_loop(
    b: int, k: int, n: int, limits: tuple[float, float], leak: float, seed: int
) -> None:
    x, w, grad = operands(b, k, n, seed)
    ours, loop = ordered_matmul(x, w, *limits, leak), by_definition(x, w, *limits, leak)
    assert close(ours, loop)
    with torch.no_grad():
        assert torch.equal(ours, ordered_matmul(x, w, *limits, leak))  # with and without remembering steps
    for a, e in zip(torch.autograd.grad(ours, (x, w), grad), torch.autograd.grad(loop, (x, w), grad), strict=True):
        assert close(a, e)


@pytest.mark.parametrize("leak", [1.0, 0.8])
def test_gradcheck_of_the_reference(leak: float) -> None:
    x, w, _ = operands(3, 7, 4, 0, torch.float64)
    assert torch.autograd.gradcheck(lambda x, w: ordered_matmul(x, w, -1.5, 1.25, leak), (x, w))


def test_without_saturation_it_is_a_plain_product() -> None:
    x, w, grad = operands(9, 50, 21, 3)
    ours = ordered_matmul(x, w, -1e4, 1e4)
    assert torch.allclose(ours, x @ w, atol=1e-4)
    dx, dw = torch.autograd.grad(ours, (x, w), grad)
    assert torch.allclose(dx, grad @ w.T, atol=1e-4) and torch.allclose(dw, x.T @ grad, atol=1e-4)


def test_the_order_matters_and_can_be_given() -> None:
    x, w, _ = operands(8, 64, 5, 4)
    x = x.detach().abs()
    w = w.detach().sort(0).values  # all negative rows first
    turned = ordered_matmul(x, w, -4, 4, perm=torch.arange(63, -1, -1))
    assert torch.equal(turned, ordered_matmul(x.flip(1), w.flip(0), -4, 4))
    assert float((turned - ordered_matmul(x, w, -4, 4)).abs().mean()) > 4


def test_rows_of_a_wider_matrix_need_no_copy_and_give_the_same() -> None:
    x, w, _ = operands(6, 90, 7, 5)
    x, w = x.detach(), w.detach()
    assert torch.equal(
        ordered_matmul(x[:, 30:60], w[30:60], -2, 2), ordered_matmul(x[:, 30:60].clone(), w[30:60], -2, 2)
    )
    assert close(ordered_matmul(x.T[:6, :6], w[:6], -2, 2), by_definition(x.T[:6, :6], w[:6], -2, 2, 1.0))


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_behave_as_in_torch(odd: float) -> None:
    x, w, _ = operands(4, 6, 3, 6)
    x, w = x.detach(), w.detach()
    x[1, 2] = odd
    expected = by_definition(x, w, -2, 2, 1.0)
    assert torch.allclose(ordered_matmul(x, w, -2, 2), expected, equal_nan=True)


def test_it_runs_under_export_and_empty() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return ordered_matmul(x, w, -1.0, 1.0)

    x, w, _ = operands(4, 6, 3, 7)
    x, w = x.detach(), w.detach()
    exported = torch.export.export(Net(), (x, w)).module()
    assert torch.equal(exported(x, w), ordered_matmul(x, w, -1.0, 1.0))
    assert torch.equal(ordered_matmul(x[:, :0], w[:0], -1, 1), torch.zeros(4, 3))
    assert ordered_matmul(x[:0], w, -1, 1).shape == (0, 3)


def test_operator_contract() -> None:
    x, w, _ = operands(4, 6, 3, 8)
    torch.library.opcheck(torch.ops.netfit.ordered_matmul_tracked.default, (x, w, -1.0, 1.0, 0.9))


def test_bad_arguments_are_named() -> None:
    x, w = torch.zeros(2, 3), torch.zeros(3, 4)
    for change, words in (
        ({"w": torch.zeros(4, 4)}, r"\(2, 3\) and \(4, 4\)"),
        ({"w": w.double()}, "torch.float64"),
        ({"lo": 2.0}, "lo=2.0 and hi=1"),
        ({"hi": float("nan")}, "hi=nan"),
        ({"leak": 0.0}, "leak=0.0"),
        ({"perm": torch.tensor([0, 1, 1])}, "permutation"),
        ({"perm": torch.tensor([0, 1])}, r"int64 \(3,\)"),
    ):
        arguments = {"x": x, "w": w, "lo": -1.0, "hi": 1.0} | change
        with pytest.raises(ConfigError, match=words):
            ordered_matmul(**arguments)
