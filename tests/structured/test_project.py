"""Projection: planted structures come back, and no error is hidden."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netfit.errors import ConfigError
from netfit.structured import KSChain, KSLinear, MonarchConv2d, PixelflyLinear, ks_multiply, project


def planted(chain, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    factors = [torch.randn(p.shape, generator=draw, dtype=dtype) / p.c**0.5 for p in chain.patterns]
    return ks_multiply(torch.eye(chain.in_features, dtype=dtype), factors, layout="feature_first")


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "chain",
    [
        KSChain.monarch(96, 64),
        KSChain.monarch(768, 256, nblocks=4),
        KSChain.monarch(256, 768),
        KSChain.monarch(60, 84, nblocks=6, rank=3),
        KSChain.butterfly(64),
        KSChain.butterfly(256),
        KSChain.low_rank(50, 40, 6),
        KSChain.block_diagonal(30, 20, 5),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_planted_structures_come_back(chain, dtype):
    found = project(planted(chain, dtype=dtype), chain)
    assert found.rel_error < 1e-5
    assert [f.shape for f in found.factors] == [p.shape for p in chain.patterns]


def hadamard(log):
    h = torch.ones(1, 1)
    for _ in range(log):
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h


def fourier(n):
    """With its columns in bit-reversed order, as of a fast Fourier transform."""
    log = n.bit_length() - 1
    order = torch.tensor([int(f"{i:0{log}b}"[::-1], 2) for i in range(n)])
    product = torch.outer(torch.arange(n), torch.arange(n)).double()
    return torch.exp(-2j * math.pi * product / n)[:, order]


def test_hadamard_and_fourier():
    assert project(hadamard(6), KSChain.butterfly(64)).rel_error < 1e-5
    assert project(fourier(64), KSChain.butterfly(64)).rel_error < 1e-12
    assert project(fourier(64), KSChain.butterfly(64)).low_rank_error > 0.3


def test_a_circulant_is_two_fourier_butterflies_with_a_diagonal_between():
    n = 32
    kernel = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    circulant = torch.stack([kernel.roll(i) for i in range(n)], 1)
    forward, chain = fourier(n), KSChain.butterfly(n)
    # In bit-reversed order the transform is a butterfly, so the circulant of the permuted input is one, a diagonal,
    # and the inverse butterfly.
    order = [int(f"{i:05b}"[::-1], 2) for i in range(n)]
    spectrum = torch.fft.fft(kernel.to(torch.complex128))
    there, back = project(forward, chain), project(forward.conj() / n, chain)
    columns = ks_multiply(torch.eye(n, dtype=torch.complex128), there.factors, layout="feature_first")
    inverse = ks_multiply(torch.eye(n, dtype=torch.complex128), back.factors, layout="feature_first").T
    made = inverse @ (spectrum[:, None] * columns)
    assert float((made.real - circulant[order][:, order]).abs().max()) < 1e-10


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([(24, 36), (40, 40), (64, 20)]))
def test_two_factors_are_optimal_and_the_error_is_true(seed, shape):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chain = KSChain.monarch(shape[1], shape[0])
    found = project(w, chain)
    near = ks_multiply(torch.eye(shape[1], dtype=w.dtype), found.factors, out_features=shape[0], layout="feature_first")
    assert found.rel_error == pytest.approx(float((w - near).norm() / w.norm()), abs=1e-12)
    assert 0 < found.rel_error < 1
    draw = torch.Generator().manual_seed(seed + 1)
    for i, f in enumerate(found.factors):  # no small step away is better
        step = 1e-3 * torch.randn(f.shape, generator=draw, dtype=f.dtype)
        other = [*found.factors[:i], f + step, *found.factors[i + 1 :]]
        moved = ks_multiply(torch.eye(shape[1], dtype=w.dtype), other, out_features=shape[0], layout="feature_first")
        assert float((w - moved).norm()) >= float((w - near).norm()) - 1e-12


def test_low_rank_is_the_singular_value_decomposition():
    w = torch.randn(30, 50, generator=torch.Generator().manual_seed(0))
    found = project(w, KSChain.low_rank(50, 30, 7))
    assert found.rel_error == pytest.approx(found.low_rank_error, abs=1e-5)
    values = torch.linalg.svdvals(w)
    assert found.rel_error == pytest.approx(float(values[7:].norm() / values.norm()), abs=1e-5)


def test_noise_is_no_structure_and_the_figures_say_so():
    w = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    found = project(w, KSChain.monarch(256, 256))
    assert found.rel_error > 0.85 and found.low_rank_error > 0.85


def test_zeros_and_bad_matrices():
    assert project(torch.zeros(8, 8), KSChain.butterfly(8)).rel_error == 0
    with pytest.raises(ConfigError, match=r"\(9, 8\) does not fit"):
        project(torch.zeros(9, 8), KSChain.butterfly(8))
    with pytest.raises(ConfigError, match="NaN"):
        project(torch.full((8, 8), torch.nan), KSChain.butterfly(8))


def test_layers_of_trained_ones():
    torch.manual_seed(0)
    linear = nn.Linear(48, 36)
    linear.weight.data.copy_(planted(KSChain.monarch(48, 36)))
    state = torch.get_rng_state()
    new = KSLinear.from_linear(linear, KSChain.monarch(48, 36))
    assert torch.equal(state, torch.get_rng_state())
    x = torch.randn(5, 48)
    assert torch.allclose(new(x), linear(x), atol=1e-5)


def test_convolutions_of_trained_ones():
    for kernel in (3, 1):
        teacher = MonarchConv2d(16, 24, kernel, 4, generator=torch.Generator().manual_seed(1))
        conv = nn.Conv2d(16, 24, kernel)
        conv.weight.data.copy_(teacher.to_dense())
        new = MonarchConv2d.from_conv(conv, 4)
        x = torch.randn(2, 16, 7, 7, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(new(x), conv(x), atol=1e-5)


def test_a_pixelated_butterfly_keeps_its_blocks_and_gains_by_rank():
    teacher = PixelflyLinear(64, 64, 8, rank=0, generator=torch.Generator().manual_seed(0))
    linear = nn.Linear(64, 64)
    linear.weight.data.copy_(teacher.to_dense())
    again = PixelflyLinear.from_linear(linear, block_size=8, rank=0)
    assert torch.allclose(again.to_dense(), linear.weight, atol=1e-6)
    w = torch.randn(64, 64, generator=torch.Generator().manual_seed(3))
    linear.weight.data.copy_(w)
    errors = [
        float((PixelflyLinear.from_linear(linear, block_size=8, rank=r).to_dense().detach() - w).norm() / w.norm())
        for r in (0, 4, 16)
    ]
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[2] + 0.1


def test_refining_helps_what_was_cut_after_cut():
    weight, chain = seeded(64, 64), KSChain.butterfly(64)
    plain, moved = project(weight, chain), project(weight, chain, refine_steps=20)
    assert moved.rel_error < 0.99 * plain.rel_error
    one = torch.eye(64)
    near = ks_multiply(one, moved.factors, layout="feature_first")
    assert moved.rel_error == pytest.approx(float((near - weight).norm() / weight.norm()), rel=1e-4)


def test_refining_leaves_the_optimum_of_two_factors():
    weight, chain = seeded(48, 64), KSChain.monarch(64, 48)
    assert project(weight, chain, refine_steps=5).rel_error == pytest.approx(project(weight, chain).rel_error, rel=1e-5)


def test_errors_count_where_inputs_are():
    weight, chain = seeded(64, 64), KSChain.monarch(64, 64)
    inputs = seeded(500, 64, seed=1) * torch.linspace(0.01, 3, 64)
    cov = inputs.T @ inputs / len(inputs)

    def outputs_off(found):
        near = ks_multiply(inputs, found.factors)
        return float((near - inputs @ weight.T).norm() / (inputs @ weight.T).norm())

    plain, aware = project(weight, chain), project(weight, chain, refine_steps=30, input_cov=cov)
    assert outputs_off(aware) < 0.98 * outputs_off(plain)
    assert aware.rel_error == pytest.approx(outputs_off(aware), rel=1e-3)
    dense = nn.Linear(64, 64)
    dense.weight.data.copy_(weight)
    layer = KSLinear.from_linear(dense, chain, refine_steps=30, input_cov=cov)
    torch.testing.assert_close(layer.factors[0].detach(), aware.factors[0])


@pytest.mark.parametrize("cov", [None, torch.diag(torch.linspace(0.1, 2, 96))])
def test_best_is_never_worse_than_low_rank(cov):
    thin = seeded(64, 5) @ seeded(5, 96, seed=1)
    chain = KSChain.monarch(96, 64)
    found = project(thin, chain, method="best", input_cov=cov)
    assert found.rel_error < 1e-5 and found.chain.n_params <= chain.n_params
    near = ks_multiply(torch.eye(96), found.factors, layout="feature_first")
    torch.testing.assert_close(near, thin, rtol=1e-3, atol=1e-3)
    planted = ks_multiply(torch.eye(96), [seeded(*p.shape) for p in chain.patterns], layout="feature_first")[:64]
    assert project(planted, chain, method="best", input_cov=cov).chain == chain


@pytest.mark.parametrize(
    ("options", "text"),
    [({"method": "bset"}, "'best'"), ({"refine_steps": -1}, "-1"), ({"input_cov": torch.eye(3)}, r"\(3, 3\)")],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ConfigError, match=text):
        project(torch.eye(8), KSChain.monarch(8, 8), **options)
