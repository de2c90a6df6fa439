"""Analysis and synthesis."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.speech._stft import STFT


@given(n=st.integers(1, 3000), overlap=st.sampled_from([2, 4, 8]), seed=st.integers(0, 9))
def test_synthesis_undoes_analysis(n, overlap, seed):
    stft = STFT(256, 256 // overlap)
    x = torch.randn(2, n, generator=torch.Generator().manual_seed(seed))
    Y = stft(x)
    assert Y.shape == (2, 129, stft.frames(n))
    assert (stft.inverse(Y, n) - x).abs().max() < 1e-5


def test_a_frame_sees_nothing_later_than_its_end():
    stft, x = STFT(64, 16), torch.randn(200)
    later = x.clone()
    later[160:] = 0
    assert torch.equal(stft(x)[:, :10], stft(later)[:, :10])


@pytest.mark.parametrize(("fft", "hop"), [(256, 512), (256, 200), (256, 100), (256, 0), (255, 51)])
def test_sizes_that_do_not_overlap(fft, hop):
    with pytest.raises(ConfigError, match=f"fft={fft} and hop={hop}"):
        STFT(fft, hop)
