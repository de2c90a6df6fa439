"""Eigenvectors followed in C against plain torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.kernels import eigen


@settings(max_examples=30)
@given(
    m=st.integers(1, 16), bins=st.sampled_from([1, 63, 64, 65, 130]), frames=st.integers(0, 6), seed=st.integers(0, 99)
)
def test_native_code_agrees_with_the_reference(m, bins, frames, seed):
    y = torch.randn(frames, 2, m, bins, generator=torch.Generator().manual_seed(seed))
    R, v = eigen.start(m, bins)
    for a, b in zip(eigen.track(y, R, v, 0.8), eigen._reference(y, R, v, 0.8), strict=True):
        assert torch.allclose(a, b, atol=2e-4, rtol=1e-3)
    assert R.abs().max() == 0  # the state that was given is kept


@given(cut=st.integers(0, 9), seed=st.integers(0, 99))
def test_state_is_all_that_later_frames_need(cut, seed):
    y = torch.randn(9, 2, 3, 70, generator=torch.Generator().manual_seed(seed))
    whole, R, v = eigen.track(y, *eigen.start(3, 70))
    first, *state = eigen.track(y[:cut], *eigen.start(3, 70))
    second, R2, v2 = eigen.track(y[cut:], *state)
    assert torch.equal(torch.cat([first, second], 1), whole) and torch.equal(R, R2) and torch.equal(v, v2)


def test_it_finds_the_direction_of_a_lasting_source():
    d = torch.randn(5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    s = torch.randn(60, 1, 1, generator=torch.Generator().manual_seed(1))
    y = torch.stack([d.real, d.imag])[None, :, :, None] * s[..., None]
    out, _, v = eigen.track(y, *eigen.start(5, 1))
    assert out[:, -1].min() > 0.999
    w = torch.complex(v[0], v[1])[:, 0]
    assert float((w.conj() * d).sum().abs() / d.norm()) == pytest.approx(1, abs=1e-4)


def test_silence_and_bad_shapes():
    out, _, v = eigen.track(torch.zeros(2, 2, 3, 4), *eigen.start(3, 4))
    assert out.isfinite().all() and v[0].unique().numel() == 1
    with pytest.raises(ConfigError, match="does not fit 4 channels of 5 bins"):
        eigen.track(torch.zeros(2, 2, 4, 5), *eigen.start(3, 5))
    with pytest.raises(ConfigError, match="must be float32"):
        eigen.track(torch.zeros(2, 2, 3, 5).double(), *eigen.start(3, 5))
    with pytest.raises(ConfigError, match=r"expected .frames, 2, channels, bins"):
        eigen.track(torch.zeros(2, 3, 5), *eigen.start(3, 5))
