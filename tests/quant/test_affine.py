"""The affine format: algebra, gradients, and bit-truth to ONNX."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.quant import Affine, fake_quantize

bits = st.integers(1, 16)
seeds = st.integers(0, 2**31)


@st.composite
def affine_formats(draw: st.DrawFn) -> Affine:
    signed, symmetric = draw(st.booleans()), draw(st.booleans())
    return Affine(draw(st.integers(2 if signed and symmetric else 1, 16)), signed, symmetric)


def randn(seed: int, *shape: int, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread


def grid(format: Affine, seed: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """A random scale and zero point that the format allows."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand((), generator=generator) * 0.1 + 1e-4
    zero = 0 if format.symmetric else int(torch.randint(format.qmin, format.qmax + 1, (), generator=generator))
    return scale, torch.tensor(zero, dtype=torch.int32), format.qmin, format.qmax


@given(affine_formats(), seeds)
def test_idempotent_and_monotone(format: Affine, seed: int) -> None:
    parameters = grid(format, seed)
    x = randn(seed, 500).sort().values
    y = fake_quantize(x, *parameters)
    assert torch.equal(fake_quantize(y, *parameters), y)
    assert (y.diff() >= 0).all()
    assert len(y.unique()) <= 2**format.bits


@given(affine_formats(), seeds)
def test_error_is_half_a_step_inside_the_range_and_saturates_outside(format: Affine, seed: int) -> None:
    scale, zero, qmin, qmax = grid(format, seed)
    lo, hi = (qmin - zero) * scale, (qmax - zero) * scale
    x = randn(seed, 500)
    y = fake_quantize(x, scale, zero, qmin, qmax)
    inside = (x >= lo) & (x <= hi)
    # Dividing and multiplying round: 16 bits of code leave 8 bits of an fp32 fraction for the step.
    assert ((y - x).abs()[inside] <= scale * 0.505).all()
    assert torch.equal(y[x > hi], torch.full_like(y[x > hi], float(hi)))
    assert torch.equal(y[x < lo], torch.full_like(y[x < lo], float(lo)))


@given(affine_formats(), seeds)
def test_qparams_cover_the_range_and_keep_zero_exact(format: Affine, seed: int) -> None:
    x = randn(seed, 100) + float(randn(seed + 1, 1))
    scale, zero = format.qparams(x.min(), x.max())
    assert scale.dtype == torch.float32 and zero.dtype == torch.int32
    assert format.qmin <= int(zero) <= format.qmax or format.symmetric
    assert fake_quantize(torch.zeros(1), scale, zero, format.qmin, format.qmax).item() == 0.0
    top = (format.qmax - zero) * scale
    if format.signed or not format.symmetric:
        assert top >= x.max() - scale * 0.51
    if format.symmetric:
        assert int(zero) == 0


def test_formats_of_inference_runtimes() -> None:
    weight, activation = Affine(8, axis=0), Affine(8, signed=False, symmetric=False)
    assert (weight.qmin, weight.qmax) == (-127, 127)
    assert (activation.qmin, activation.qmax) == (0, 255)
    assert (Affine(8, symmetric=False).qmin, Affine(8, symmetric=False).qmax) == (-128, 127)
    scale, zero = activation.qparams(torch.tensor(0.4), torch.tensor(5.1))
    assert int(zero) == 0 and scale.item() == pytest.approx(0.02)
    assert activation.qparams(torch.zeros(()), torch.zeros(()))[0].item() == 1.0


@given(st.sampled_from([0, 1, 2, 3, -1]), st.booleans(), seeds)
def test_per_channel_equals_per_slice(axis: int, symmetric: bool, seed: int) -> None:
    x = randn(seed, 3, 4, 5, 2)
    whole = Affine(5, symmetric=symmetric, axis=axis)(x)
    slices = [Affine(5, symmetric=symmetric)(part) for part in x.unbind(axis)]
    assert torch.equal(whole, torch.stack(slices, axis % 4))


@given(affine_formats(), seeds)
def test_gradient_passes_exactly_where_the_code_is_not_clipped(format: Affine, seed: int) -> None:
    scale, zero, qmin, qmax = grid(format, seed)
    x = randn(seed, 300).requires_grad_()
    upstream = randn(seed + 1, 300)
    fake_quantize(x, scale, zero, qmin, qmax).backward(upstream)
    code = (x.detach() / scale).round() + zero
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where((code >= qmin) & (code <= qmax), upstream, 0.0))


@given(st.booleans(), seeds)
def test_scale_gradient_is_that_of_lsq(per_channel: bool, seed: int) -> None:
    axis = 1 if per_channel else None
    x, upstream = randn(seed, 6, 3, 4), randn(seed + 1, 6, 3, 4)
    scale = (torch.rand(3 if per_channel else (), generator=torch.Generator().manual_seed(seed)) + 0.1).requires_grad_()
    zero = torch.zeros(scale.shape, dtype=torch.int32)
    fake_quantize(x, scale, zero, -7, 7, axis).backward(upstream)
    v = x / (scale.detach().view(3, 1) if per_channel else scale.detach())
    slope = torch.where(v.round().abs() <= 7, v.round() - v, v.round().clamp(-7, 7))
    expected = (upstream * slope).sum((0, 2)) if per_channel else (upstream * slope).sum()
    assert scale.grad is not None and scale.grad.shape == scale.shape
    torch.testing.assert_close(scale.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_input_is_computed_in_fp32(dtype: torch.dtype) -> None:
    x = randn(0, 4000).to(dtype).requires_grad_()
    y = fake_quantize(x, torch.tensor(0.0137), torch.tensor(99, dtype=torch.int32), 0, 255)
    assert y.dtype == dtype
    assert torch.equal(y, fake_quantize(x.float(), torch.tensor(0.0137), torch.tensor(99), 0, 255).to(dtype))
    y.sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype


def test_stochastic_rounding_is_unbiased_and_follows_its_generator() -> None:
    x = torch.linspace(-1, 1, 50).repeat(4000, 1)
    scale, zero = torch.tensor(0.3), torch.tensor(0)
    draw = [fake_quantize(x, scale, zero, -7, 7, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    assert ((draw[0] - x).abs() < 0.3001).all()
    assert ((draw[0].mean(0) - x[0]).abs() < 4.5 * 0.15 / 4000**0.5).all()


def test_works_under_torch_func() -> None:
    x, zero = randn(0, 5, 20), torch.tensor(0, dtype=torch.int32)
    scales = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])

    def loss(row: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return fake_quantize(row, scale, zero, -7, 7).square().sum()

    by_row, by_scale = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(x, scales)
    for row, scale, grad_row, grad_scale in zip(x, scales, by_row, by_scale, strict=True):
        leaves = row.clone().requires_grad_(), scale.clone().requires_grad_()
        expected = torch.autograd.grad(loss(*leaves), leaves)
        torch.testing.assert_close((grad_row, grad_scale), expected)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_tensors_pass(shape: tuple[int, ...]) -> None:
    assert Affine(8)(torch.empty(shape)).shape == shape
    assert fake_quantize(torch.empty(shape), torch.tensor(1.0), torch.tensor(0), -127, 127).shape == shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Affine(0), "bits=0"),
        (lambda: Affine(17), "bits=17"),
        (lambda: Affine(1), "Binary"),
        (lambda: Affine(8, axis=2)(torch.ones(2, 2)), "axis=2"),
        (lambda: fake_quantize(torch.ones(2, 3), torch.ones(2), torch.zeros(2), 0, 1, axis=1), "2 scales"),
        (lambda: fake_quantize(torch.ones(2, 3), torch.ones(2), torch.zeros(2), 0, 1), "one tensor"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def onnx_qdq(x: Any, scale: Any, zero: Any, axis: int | None) -> Any:
    """QuantizeLinear then DequantizeLinear by ONNX Runtime, graph optimisations off."""
    helper = pytest.importorskip("onnx.helper")
    ort = pytest.importorskip("onnxruntime")
    kinds = {"x": np.float32, "s": np.float32, "z": zero.dtype, "y": np.float32}
    info = {
        name: helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
        for name, kind in kinds.items()
    }
    extra = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **extra),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **extra),
    ]
    graph = helper.make_graph(nodes, "qdq", [info["x"], info["s"], info["z"]], [info["y"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"x": x, "s": scale, "z": zero})[0]


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16])
def test_bit_true_to_onnx_ties_included(kind: Any, axis: int | None) -> None:
    limits = np.iinfo(kind)
    shape = () if axis is None else ((40, 250)[axis],)
    generator = torch.Generator().manual_seed(limits.max + (axis or 7))
    scale = torch.rand(shape, generator=generator) * 0.05 + 1e-3
    zero = torch.randint(limits.min, limits.max + 1, shape, generator=generator, dtype=torch.int32)
    along = scale if axis is None else scale.view((-1, 1) if axis == 0 else (1, -1))
    codes = torch.randint(-300, 300, (40, 250), generator=generator)
    for x in ((codes + 0.5) * along, randn(3, 40, 250, spread=4.0), randn(4, 40, 250, spread=1e4)):
        ours = fake_quantize(x, scale, zero, limits.min, limits.max, axis).numpy()
        np.testing.assert_array_equal(ours, onnx_qdq(x.numpy(), scale.numpy(), zero.numpy().astype(kind), axis))
