"""Blocks that run twice count once."""

import copy

import pytest
import torch
from torch import nn

from netfit.errors import ConfigError
from netfit.memory import TrainingStep, compressed_saved, measure, recompute_blocks
from netfit.models import build


def block(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width, momentum=None), nn.ReLU(),
    )  # fmt: skip


def step() -> TrainingStep:
    torch.manual_seed(0)
    net = nn.Sequential(*[block(8) for _ in range(4)]).train()
    return TrainingStep(net, torch.randn(16, 8, 16, 16), optimizer=torch.optim.SGD(net.parameters(), lr=0.1))


@pytest.mark.parametrize("word", [None, "lossless"])
def test_steps_and_statistics_are_those_of_plain_training(word: str | None) -> None:
    states = []
    for recomputed in (False, True):
        one = step()
        handle = recompute_blocks(one.model, "[12]") if recomputed else None
        torch.manual_seed(1)
        for _ in range(3):
            if word and recomputed:
                with compressed_saved(one.model, word):
                    one()
            else:
                one()
        if handle:
            handle.remove()
            assert "forward" not in one.model[1].__dict__
        states.append(one.model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-6)
        if value.dtype == torch.int64:
            assert value == states[1][name] == 3


def test_it_takes_less_memory() -> None:
    one = step()
    plain = measure(one, repeats=0).peak
    with recompute_blocks(one.model, "?"):
        assert measure(one, repeats=0).peak < 0.75 * plain


def test_names_evaluation_and_blocks_in_blocks() -> None:
    net = build("resnet20").train()
    with pytest.raises(ConfigError, match=r"'layer9\.\*' matches no block"):
        recompute_blocks(net, "layer9.*")
    x, before = torch.randn(2, 3, 32, 32), copy.deepcopy(net)
    with recompute_blocks(net, "layer*"):  # the layers, not what they hold
        assert [n for n, m in net.named_modules() if "forward" in m.__dict__] == ["layer1", "layer2", "layer3"]
        with torch.no_grad():
            assert torch.equal(net.eval()(x), before.eval()(x))
    assert net.state_dict().keys() == before.state_dict().keys()
