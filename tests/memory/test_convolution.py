"""Convolutions that go through the batch in stretches: the gradients of plain ones, in less room."""

from typing import Any

import pytest
import torch
from torch import nn

from netfit.memory import TrainingStep, compressed_saved, measure

CASES: dict[str, tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "1d": (nn.Conv1d, {"kernel_size": 5, "padding": 2}, (9, 16, 4096)),
    "2d": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "bias": False}, (9, 16, 64, 64)),
    "strided": (nn.Conv2d, {"kernel_size": (3, 5), "stride": (2, 1), "padding": (0, 2)}, (9, 16, 64, 64)),
    "dilated groups": (nn.Conv2d, {"kernel_size": 3, "dilation": 2, "groups": 4}, (9, 16, 64, 64)),
    "same": (nn.Conv2d, {"kernel_size": 3, "padding": "same"}, (9, 16, 64, 64)),
    "3d": (nn.Conv3d, {"kernel_size": 3}, (6, 16, 12, 24, 24)),
    "one sample": (nn.Conv2d, {"kernel_size": 3}, (16, 192, 192)),
}


class Between(nn.Module):
    """A convolution with something before it, so that its input has a gradient, and can be made again."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.scale, self.conv = nn.Parameter(torch.tensor(1.1)), conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.relu(self.scale * x))


def gradients(net: nn.Module, x: torch.Tensor, word: str | None) -> list[torch.Tensor]:
    if word is None:
        loss = net(x).square().mean()
    else:
        with compressed_saved(net, {"*": word}):
            loss = net(x).square().mean()
    return list(torch.autograd.grad(loss, [x, *net.parameters()]))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("word", ["keep", "lossless", "q8"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_those_of_torch(name: str, word: str, channels_last: bool) -> None:
    make, settings, shape = CASES[name]
    if channels_last and len(shape) != 4:
        pytest.skip("a layout of images")
    net, x = Between(make(16, 8, **settings)), torch.randn(shape)
    x = (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    for a, b in zip(gradients(net, x, None), gradients(net, x, word), strict=True):
        assert (a - b).norm() <= (0.01 if word == "q8" else 1e-5) * a.norm()


def test_a_kept_input_is_not_written_to_and_the_graph_can_be_read_twice() -> None:
    conv, x = nn.Conv2d(16, 16, 3, padding=1), torch.randn(9, 16, 64, 64, requires_grad=True)
    before = x.detach().clone()
    with compressed_saved(conv, "keep"):
        loss = conv(x).square().mean()
    first = torch.autograd.grad(loss, [x, conv.weight], retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(loss, [x, conv.weight])))
    assert torch.equal(x, before)


def test_a_gradient_of_a_gradient() -> None:
    conv, x = nn.Conv2d(16, 4, 3), torch.randn(9, 16, 64, 64, requires_grad=True)

    def penalty() -> torch.Tensor:
        (g,) = torch.autograd.grad(conv(x).square().mean(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), conv.weight)[0]

    plain = penalty()
    with compressed_saved(conv, "keep"):
        assert torch.allclose(penalty(), plain, rtol=1e-4)


def test_a_weight_that_was_changed_is_an_error() -> None:
    conv, x = nn.Conv2d(16, 16, 3), torch.randn(9, 16, 64, 64, requires_grad=True)
    with compressed_saved(conv, "keep"):
        loss = conv(x).square().mean()
    with torch.no_grad():
        conv.weight.add_(1)
    with pytest.raises(RuntimeError, match="in-place operation: it is at version"):
        loss.backward()


def test_the_backward_pass_takes_less_room() -> None:
    net = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
    step = TrainingStep(net, torch.randn(32, 3, 32, 32), loss_fn=torch.mean)
    one = 32 * 32 * 32 * 32 * 4
    plain, kept = (measure(step, policy=word, isolate=False, repeats=0) for word in (None, {"*": "keep"}))
    assert kept.saved == plain.saved
    assert kept.peak < plain.peak - 0.9 * one
