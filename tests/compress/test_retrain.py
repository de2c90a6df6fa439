"""Retraining: which epochs round, how fast they learn, and when BatchNorm is frozen."""

import pytest
import torch
from torch import nn

from netfit.compress._retrain import retrain
from netfit.surgery import Policy, Quantization, Quantize, apply, calibrate

EPOCH_STEPS = 4


@pytest.fixture
def data():
    x = torch.randn(16 * EPOCH_STEPS, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return x, (x.mean((1, 2, 3)) > 0).long()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def rounded(x, **widths):
    model = apply(net(), Policy({"kind:conv2d": Quantize(**widths), "kind:linear": Quantize(**widths)}), x[:2])
    calibrate(model, [x])
    return model


def trained(model, data, epochs):
    return retrain(
        model, data, teacher=None, epochs=epochs, lr=0.1, batch_size=16, weight_decay=0.0, seed=0, validation=data
    )


@pytest.mark.parametrize("epochs", [2, 5, 10])
def test_gentle_rounding_comes_last(data, epochs):
    model = rounded(data[0])
    steps = []
    for quantizer in Quantization.of(model).observers()[:1]:  # plain() copies the model without it
        quantizer.register_forward_hook(lambda m, args, out: steps.append(m.mode) if model.training else None)
    history = trained(model, data, epochs)
    assert len(history.loss) == epochs and history.loss[-1] < history.loss[0]
    before = max(1, epochs // 5) - 1
    assert steps == ["quantize"] * EPOCH_STEPS * before + ["frozen"] * EPOCH_STEPS


def test_the_last_of_few_epochs_freezes_nothing_that_still_learns_fast(data):
    for epochs, in_training in ((1, 1), (2, 2), (4, 4), (5, 4), (6, 5)):
        model, modes = net(), []
        model[1].register_forward_hook(lambda m, args, out, modes=modes: modes.append(m.training))
        trained(model, data, epochs)
        assert sum(modes) == in_training * EPOCH_STEPS


def test_few_bits_round_from_the_first_step(data):
    model = rounded(data[0], weight_bits=4, act_bits=4)
    changed = []
    first = Quantization.of(model).observers()[0]
    first.register_forward_hook(lambda m, args, out: changed.append(not torch.equal(args[0], out)))
    trained(model, data, 2)
    assert len(changed) >= 2 * EPOCH_STEPS and all(changed)
