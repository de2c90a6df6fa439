"""The native chain against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.kernels import kronecker, toolchain

pytestmark = pytest.mark.skipif(toolchain() is None, reason="there is no C compiler")


def definition(x, factors, bias, features):
    """y[i, j, l] = sum_k K[i, l, j, k] x[i, k, l], in double precision; x is (samples, features)."""
    x = x.double()
    first = factors[0]
    x = torch.nn.functional.pad(x, (0, first.shape[0] * first.shape[1] * first.shape[3] - x.shape[1]))
    for f in factors:
        a, d, b, c = f.shape
        x = torch.einsum("aljk,nakl->najl", f.double(), x.reshape(-1, a, c, d)).reshape(-1, a * b * d)
    x = x[:, :features]
    return x if bias is None else x + bias.double()


def near(one, two):
    two = two.detach()
    return float((one.double() - two).abs().max()) < 1e-5 * max(1.0, float(two.abs().max()))


@st.composite
def chains(draw):
    """Two or three patterns that fit, with a crop at either end."""
    a, d = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2, 3]))
    b, c = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    shapes = [(a, d, b, c)]
    for _ in range(draw(st.integers(0, 2))):
        width = shapes[-1][0] * shapes[-1][1] * shapes[-1][2]
        step = draw(st.sampled_from([n for n in range(1, width + 1) if width % n == 0]))
        shapes.append((1, step, draw(st.integers(1, 18)), width // step))
    reads = a * d * c
    writes = shapes[-1][0] * shapes[-1][1] * shapes[-1][2]
    return shapes, draw(st.integers(max(1, reads - 3), reads)), draw(st.integers(max(1, writes - 3), writes))


@settings(max_examples=40)
@given(chains(), st.sampled_from([1, 3, 16, 17, 40]), st.booleans(), st.integers(0, 1000))
def test_forward_and_backward_are_those_of_the_definition(chain, samples, with_bias, seed):
    shapes, features, out = chain
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, features, generator=draw)
    factors = [torch.randn(s, generator=draw) / s[3] ** 0.5 for s in shapes]
    bias = torch.randn(out, generator=draw) if with_bias else None
    leaves = [t.double().requires_grad_() for t in (x, *factors)]
    expected = definition(leaves[0], leaves[1:], bias, out)
    assert near(kronecker.forward(x, kronecker.pack(factors), bias, out), expected)
    across = kronecker.forward(x.t().contiguous()[None], kronecker.pack(factors), bias, out)
    assert near(across[0].t(), expected)
    g = torch.randn(samples, out, generator=draw)
    wanted = torch.autograd.grad(expected, leaves, g.double())
    dx, grads = kronecker.backward(x, factors, g, True)
    assert dx is not None and all(near(*pair) for pair in zip([dx, *grads], wanted, strict=True))
    assert kronecker.backward(x, factors, g, False)[0] is None


def test_groups_are_apart():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 6, 50, generator=draw)
    factors = [torch.randn(2, 1, 4, 3, generator=draw), torch.randn(1, 4, 5, 2, generator=draw)]
    bias = torch.randn(20, generator=draw)
    y = kronecker.forward(x, kronecker.pack(factors), bias, 20)
    assert y.shape == (3, 20, 50)
    for one, result in zip(x, y, strict=True):
        assert near(result.t(), definition(one.t(), factors, bias, 20))


def test_ready_only_for_float32_in_main_memory(monkeypatch):
    x, f = torch.zeros(2, 4), torch.zeros(1, 1, 4, 4)
    assert kronecker.ready(x, [f])
    assert not kronecker.ready(x.double(), [f.double()])
    assert not kronecker.ready(x, [f.to("meta")])
    assert not kronecker.ready(torch.zeros(0, 4), [f])
    monkeypatch.setenv("NETFIT_CC", "none")
    assert not kronecker.ready(x, [f])


@pytest.mark.parametrize("shape", [(100, 24), (1, 24, 100), (5, 24, 40)])
def test_threads_share_the_samples(shape, monkeypatch):
    """Forced to split little work: the same result, each sample once."""
    draw = torch.Generator().manual_seed(0)
    x, factors = torch.randn(shape, generator=draw), [torch.randn(2, 1, 9, 12, generator=draw)]
    bias, g = torch.randn(18, generator=draw), torch.randn(*shape, generator=draw)
    g = (g[:, :18] if x.ndim == 2 else g[:, :18, :]).contiguous()

    def both():
        return kronecker.forward(x, kronecker.pack(factors), bias, 18), *kronecker.backward(x, factors, g, True)

    y, dx, (dw,) = both()
    monkeypatch.setattr(kronecker, "_WORTH", 1)
    monkeypatch.setattr(kronecker.torch, "get_num_threads", lambda: 3)
    y3, dx3, (dw3,) = both()
    assert torch.equal(y, y3) and torch.equal(dx, dx3)
    torch.testing.assert_close(dw, dw3, rtol=1e-5, atol=1e-4)
