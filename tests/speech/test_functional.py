"""Beamformers against what defines them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.speech import functional as fn
from netfit.speech.scores import oracle, si_sdr

F = 9
EYE = torch.eye(3).expand(F, 3, 3)


def covariances(M, seed, rank_one=False):
    g = torch.Generator().manual_seed(seed)
    y = torch.randn(F, M, 4 * M, dtype=torch.complex128, generator=g)
    s = torch.randn(F, M, 1 if rank_one else 2 * M, dtype=torch.complex128, generator=g)
    return s @ s.mH, y @ y.mH / (4 * M), s[..., 0]


@given(M=st.integers(2, 8), ref=st.integers(0, 7), seed=st.integers(0, 99))
def test_mvdr_lets_a_single_source_pass_as_the_reference_hears_it(M, ref, seed):
    ref %= M
    Rs, Rn, d = covariances(M, seed, rank_one=True)
    w = fn.mvdr(Rs, Rn, ref)
    assert torch.allclose((w.conj() * d).sum(-1), d[:, ref])
    steered = torch.linalg.solve(Rn, d)  # the textbook's filter, which knows the steering vector
    textbook = steered / (d.conj() * steered).sum(-1, keepdim=True) * d[:, ref].conj()[:, None]
    assert torch.allclose(w, textbook, rtol=1e-6, atol=1e-9)


@given(M=st.integers(2, 8), seed=st.integers(0, 99))
def test_gev_has_the_largest_ratio_of_all_filters(M, seed):
    Rs, Rn, _ = covariances(M, seed)

    def ratio(w):
        return (
            (w.conj() * (Rs @ w[..., None])[..., 0]).sum(-1) / (w.conj() * (Rn @ w[..., None])[..., 0]).sum(-1)
        ).real

    w = fn.gev(Rs, Rn)
    other = torch.randn(100, F, M, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    assert (ratio(w) >= ratio(other) - 1e-9).all()
    largest = torch.linalg.eigvals(torch.linalg.solve(Rn, Rs)).real.max(-1).values
    assert torch.allclose(ratio(w), largest)


@given(M=st.integers(2, 8), ref=st.integers(0, 7), seed=st.integers(0, 99))
def test_pan_keeps_the_speech_of_the_reference(M, ref, seed):
    ref %= M
    Rs, Rn, _ = covariances(M, seed)
    w = fn.gev(Rs, Rn)
    v = (Rn @ w[..., None])[..., 0]
    normal = fn.pan(w, Rn, ref)
    assert ((normal.conj() * v).sum(-1) - v[:, ref]).abs().max() < 1e-6
    turned = w * torch.exp(1j * torch.arange(F))[:, None] * 3  # the phase and size of GEV are arbitrary; PAN's are not
    again, u = fn.pan(turned, Rn, ref), (Rn @ turned[..., None])[..., 0]
    assert ((again.conj() * u).sum(-1) - u[:, ref]).abs().max() < 1e-6
    assert torch.allclose(again, normal)


@given(M=st.integers(2, 6), seed=st.integers(0, 99))
def test_ban_changes_only_the_size_of_a_filter(M, seed):
    Rs, Rn, _ = covariances(M, seed)
    w = fn.gev(Rs, Rn)
    factor = fn.ban(w, Rn) / w
    assert factor.imag.abs().max() < 1e-12 and (factor.real > 0).all()
    assert torch.allclose(fn.ban(5 * w, Rn), fn.ban(w, Rn))


@given(gain=st.floats(1e-4, 1e4), angle=st.floats(0, 6.28), seed=st.integers(0, 99))
def test_a_common_gain_or_phase_of_all_microphones_changes_nothing_else(gain, angle, seed):
    g = torch.Generator().manual_seed(seed)
    Y = torch.randn(4, F, 50, dtype=torch.complex128, generator=g)
    mask = torch.rand(F, 50, generator=g).double()
    factor = gain * torch.exp(torch.tensor(1j * angle))

    def voices(Z):
        Rs, Rn = fn.scm(Z, mask), fn.load(fn.scm(Z, 1 - mask))
        w = fn.gev(Rs, Rn)
        return fn.apply(fn.mvdr(Rs, Rn, 1), Z), fn.apply(fn.pan(w, Rn, 1), Z)

    for a, b in zip(voices(Y), voices(factor * Y), strict=True):
        assert torch.allclose(factor * a, b, rtol=1e-6, atol=1e-9 * gain)


def test_apply_and_scm_are_their_sums():
    Y = torch.randn(2, 3, F, 7, dtype=torch.complex64)
    w, m = torch.randn(2, F, 3, dtype=torch.complex64), torch.rand(2, F, 7)
    expected = torch.einsum("bfm,bmft->bft", w.conj(), Y)
    assert torch.allclose(fn.apply(w, Y), expected, atol=1e-5)
    R = torch.einsum("bft,bmft,bnft->bfmn", m.to(Y.dtype), Y, Y.conj()) / m.sum(-1)[..., None, None]
    assert torch.allclose(fn.scm(Y, m), R, atol=1e-5)


def test_digital_silence_gives_numbers():
    Y = torch.zeros(3, F, 5, dtype=torch.complex64)
    R = fn.load(fn.scm(Y, torch.zeros(F, 5)))
    for w in (fn.mvdr(fn.scm(Y, torch.ones(F, 5)), R), fn.pan(fn.gev(R, R), R)):
        assert w.isfinite().all()


def test_power_iteration_finds_the_dominant_eigenvector():
    R, _, _ = covariances(5, 3)
    v = fn.power_iteration(R, torch.ones(F, 5, dtype=R.dtype), n=300)
    best = torch.linalg.eigh(R)[1][..., -1]
    assert torch.allclose((v.conj() * best).sum(-1).abs(), torch.ones(F).double(), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.mvdr(torch.ones(F, 1, 1), torch.ones(F, 1, 1)), "not 1; use beamformer='none'"),
        (lambda: fn.gev(torch.ones(F, 1, 1), torch.ones(F, 1, 1)), "needs >= 2 microphones"),
        (lambda: fn.mvdr(EYE, EYE, 3), "microphone 3 is not one of the 3"),
        (lambda: fn.mvdr(torch.ones(F, 2, 2), torch.ones(F, 3, 3)), "must have one shape"),
        (lambda: fn.gev(torch.ones(F, 2, 2), torch.zeros(F, 2, 2)), "not positive definite"),
        (lambda: fn.scm(torch.ones(2, F, 4), torch.ones(F, 5)), "does not fit a spectrum"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_pan_repairs_the_phase_that_ban_leaves(scenes):
    """At 0 to 3 dB, with the ideal mask; any phase per frequency is as good a GEV filter as any other."""
    from netfit.speech._stft import STFT
    from netfit.speech._train import ideal_mask

    stft, gains = STFT(), []
    for scene in scenes:
        Y, mask = stft(scene.mix.double()), ideal_mask(scene, stft).double()
        Rs, Rn = fn.scm(Y, mask), fn.load(fn.scm(Y, 1 - mask))
        w = fn.gev(Rs, Rn)
        w = w * torch.exp(2j * torch.pi * torch.rand(len(w), 1, generator=torch.Generator().manual_seed(0)))
        n = scene.mix.shape[1]
        made = [stft.inverse(fn.apply(x, Y), n) for x in (fn.pan(w, Rn), fn.ban(w, Rn))]
        gains.append(si_sdr(made[0], scene.speech[0]) - si_sdr(made[1], scene.speech[0]))
        assert si_sdr(oracle(scene), scene.speech[0]) > si_sdr(scene.mix[0], scene.speech[0]) + 4
    assert sum(gains) / len(gains) >= 5
