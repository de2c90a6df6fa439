"""Codecs: sizes by formula, errors as they should be, layouts kept, bad values refused."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError, JobError
from netfit.kernels import pack_mask, unpack_mask
from netfit.memory.codecs import BlockSparse, Cast, Compose, KBit, Keep, Pool, SignMask, parse, weight_gradient

WORDS = ["keep", "mask", "bf16", "fp16", "fp8", "q1", "q2", "q4", "q8", "q4g64", "pool2", "pool3", "bsr25", "bsr10b32",
         "pool2+q8", "bsr50+q4"]  # fmt: skip


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("word", WORDS)
def test_a_word_gives_its_codec_and_back(word: str) -> None:
    assert str(parse(word)) == word
    assert parse(str(parse(word))) == parse(word)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("shape", [(8, 12, 17, 15), (40, 33), (6, 21, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_bytes_are_the_formula_and_shape_and_type_return(
    word: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    codec, x = parse(word), noise(*shape).to(dtype)
    packed = codec.pack(x, seed=3)
    assert packed.nbytes == codec.nbytes(shape, dtype)
    back = packed.unpack()
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    assert torch.equal(back, packed.unpack()), "reading twice gives two answers"


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 3000), st.integers(0, 2**62))
@settings(max_examples=40)
def test_k_bit_errors_stay_below_a_step(bits: int, n: int, seed: int) -> None:
    x = noise(n, seed=seed % 1000)
    packed = KBit(bits).pack(x, seed)
    step = packed.tensors[2].repeat_interleave(256)[:n]
    assert bool(((packed.unpack() - x).abs() <= step * 1.0001 + 1e-7).all())


def test_k_bit_rounding_has_no_bias_and_a_constant_is_exact() -> None:
    x = noise(4096)
    mean = torch.stack([KBit(2).pack(x, seed).unpack() for seed in range(200)]).mean(0)
    spread = KBit(2).pack(x).tensors[2].repeat_interleave(256)
    assert bool(((mean - x).abs() < 5 * spread / 2 / 200**0.5).all())
    assert torch.equal(KBit(1).pack(torch.full((5000,), 0.1)).unpack(), torch.full((5000,), 0.1))


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -3.4e38])
def test_a_group_that_has_no_range_is_kept_exactly(odd: float) -> None:
    x = noise(1000)
    x[300], x[301] = odd, 3.4e38
    back = KBit(4).pack(x).unpack()
    assert torch.equal(back[256:512].nan_to_num(7), x[256:512].nan_to_num(7))
    assert bool((back[:256] - x[:256]).abs().max() < 1)
    with torch.autograd.set_detect_anomaly(True, check_nan=False), pytest.raises(JobError, match="NaN or infinity"):
        KBit(4).pack(x)


def test_half_precision_values_do_not_overflow_the_scale() -> None:
    x = torch.tensor([-65504.0, 65504.0] * 400, dtype=torch.float16)
    assert torch.equal(KBit(8).pack(x).unpack(), x)
    assert bool(Cast(torch.float16).pack(torch.tensor([1e6])).unpack().isfinite().all())


@given(st.integers(0, 100), st.integers(0, 1000))
def test_a_mask_is_exact_for_two_values(n: int, seed: int) -> None:
    x = (noise(n, seed=seed) > 0) * 1.25
    assert torch.equal(SignMask().pack(x).unpack(), x)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1003])
def test_native_and_reference_masks_are_equal(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(n)
    bits = pack_mask(x)
    values = unpack_mask(bits, 1.5, n)
    monkeypatch.setenv("NETFIT_CC", "none")
    assert torch.equal(bits, pack_mask(x))
    assert torch.equal(values, unpack_mask(bits, 1.5, n))
    with pytest.raises(ConfigError, match="expected"):
        unpack_mask(bits, 1.0, n + 8)


@pytest.mark.parametrize("word", ["q4", "mask", "pool2", "bf16"])
def test_layouts_are_kept(word: str) -> None:
    x = noise(2, 8, 16, 16).to(memory_format=torch.channels_last)
    assert parse(word).pack(x).unpack().stride() == x.stride()
    view = noise(4, 64, 32)[:, ::2]
    assert parse(word).pack(view).unpack().shape == view.shape


def test_pooling_averages_and_small_maps_are_kept() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert Pool(2).pack(x).unpack()[0, 0, 0].tolist() == [2.5, 2.5, 4.5, 4.5]
    odd = Pool(2).pack(noise(1, 1, 5, 5)).unpack()
    assert odd.shape == (1, 1, 5, 5)
    small = noise(3, 2, 2, 2)
    assert torch.equal(Pool(4).pack(small).unpack(), small)


def test_the_largest_blocks_stay() -> None:
    x = torch.zeros(64, 64)
    x[8:16, 32:40], x[40:48, :8] = 5.0, -7.0
    packed = BlockSparse(8, 2 / 64).pack(x + 0.001 * noise(64, 64))
    assert torch.equal(packed.unpack().abs() > 1, x.abs() > 1)
    assert torch.allclose(BlockSparse(8, 1.0).pack(noise(30, 21)).unpack(), noise(30, 21))


@given(st.integers(1, 90), st.integers(1, 70), st.integers(1, 20), st.sampled_from([0.1, 0.3, 1.0]))
@settings(max_examples=30)
def test_the_weight_gradient_of_blocks_is_that_of_the_unpacked_matrix(
    rows: int, features: int, outputs: int, density: float
) -> None:
    x, gradient = noise(rows, features), noise(rows, outputs, seed=1)
    packed = BlockSparse(8, density).pack(x)
    found = weight_gradient(gradient, *packed.tensors, features)
    assert torch.allclose(found, gradient.T @ packed.unpack(), atol=1e-4)


def test_composition_packs_the_values_of_the_first() -> None:
    both = Compose(Pool(2), KBit(8))
    x = noise(4, 8, 16, 16)
    assert both.nbytes(tuple(x.shape), x.dtype) < Pool(2).nbytes(tuple(x.shape), x.dtype) / 3
    assert torch.allclose(both.pack(x).unpack(), Pool(2).pack(x).unpack(), atol=0.05)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [(KBit, (3,)), (KBit, (4, 7)), (BlockSparse, (8, 0.0)), (BlockSparse, (8, 1.5)), (BlockSparse, (0,)),
     (Pool, (1,)), (Cast, (torch.int8,)), (parse, ("keep+q4",))],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(cls: Callable[..., object], settings: tuple[object, ...]) -> None:
    with pytest.raises(ConfigError):
        cls(*settings)


def test_keep_is_the_tensor_itself() -> None:
    x = noise(10)
    assert Keep().pack(x).unpack().data_ptr() == x.data_ptr()
