"""Recursive covariances and their filters: C against plain torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.kernels import mvdr


def frames(m, bins, n, seed):
    g = torch.Generator().manual_seed(seed)
    y = torch.randn(n, m, bins, dtype=torch.complex128, generator=g)
    return y, torch.rand(n, bins, dtype=torch.float64, generator=g)


def followed(y, mask, keep=0.9):
    R = mvdr.start(*y.shape[1:])
    for frame, share in zip(y, mask, strict=True):
        mvdr.follow(R, frame, share, keep)
    return R


@settings(max_examples=30)
@given(m=st.integers(1, 16), bins=st.sampled_from([1, 15, 16, 17, 40]), n=st.integers(0, 30), seed=st.integers(0, 99))
def test_native_code_agrees_with_the_reference(m, bins, n, seed):
    y, mask = frames(m, bins, n, seed)
    R = followed(y, mask)
    w = mvdr.filters(R, ref=m - 1, load=1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETFIT_CC", "none")
        assert torch.allclose(followed(y, mask), R, rtol=1e-9, atol=1e-12)
        assert torch.allclose(mvdr.filters(R, ref=m - 1, load=1e-3), w, rtol=1e-6, atol=1e-9)


def test_covariances_are_their_sums():
    y, mask = frames(3, 5, 4, 0)
    speech, noise = mvdr.matrices(followed(y, mask, keep=0.5))
    size = y.abs().square().mean(1).sqrt()
    weight = 0.5 ** torch.arange(3, -1, -1)[:, None] / size
    for found, share in ((speech, mask), (noise, 1 - mask)):
        assert torch.allclose(
            found, torch.einsum("tf,tif,tjf->fij", (share.square() * weight).to(y.dtype), y, y.conj())
        )


@pytest.mark.parametrize("ref", [0, 2])
def test_a_single_source_passes_as_the_reference_hears_it(ref):
    y, _ = frames(4, 7, 200, 1)
    d = torch.randn(4, 7, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))
    R = followed(torch.cat([y, d[None]]), torch.cat([torch.zeros(200, 7), torch.ones(1, 7)]).double(), keep=1.0)
    w = mvdr.filters(R, ref)
    assert torch.allclose((w.conj() * d).sum(0), d[ref], rtol=1e-6)
    quieter = (w.conj() * y).sum(1).abs().square().mean()
    assert quieter < 0.6 * y[:, ref].abs().square().mean()


def test_silence_and_bad_shapes():
    R = mvdr.start(3, 4)
    mvdr.follow(R, torch.zeros(3, 4, dtype=torch.complex128), torch.zeros(4).double(), 0.9)
    assert mvdr.filters(R).isfinite().all()
    with pytest.raises(ConfigError, match="17 channels"):
        mvdr.start(17, 4)
    with pytest.raises(ConfigError, match="make them with start"):
        mvdr.filters(R[:1])
    with pytest.raises(ConfigError, match="reference 3 is none of the 3"):
        mvdr.filters(R, 3)
    with pytest.raises(ConfigError, match=r"expected complex128 \(3, 4\)"):
        mvdr.follow(R, torch.zeros(2, 4, dtype=torch.complex128), torch.zeros(4).double(), 0.9)
