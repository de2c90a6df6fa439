"""Schedule, optimizer groups, augmentation, evaluation and BatchNorm recalibration."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netfit.errors import ConfigError
from netfit.train import AUGMENTATIONS, evaluate, logits, recalibrate
from netfit.train._optimizer import one_cycle, optimizer_of


@pytest.mark.parametrize("steps", [10, 37, 400])
def test_schedule_is_torchs_one_cycle(steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=steps)
    for step in range(steps):
        assert one_cycle(step, steps, 0.3) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        scheduler.step()


@given(st.integers(1, 50), st.data())
def test_schedule_is_positive_and_below_the_peak_for_any_length(steps, draw):
    rate = one_cycle(draw.draw(st.integers(0, steps - 1)), steps, 0.7)
    assert 0 < rate <= 0.7


def test_only_matrices_and_kernels_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2, bias=False))
    decay, none = optimizer_of("sgd", model, 0.1).param_groups
    assert {p.dim() for p in decay["params"]} == {2, 4} and decay["weight_decay"] == 0.1
    assert {p.dim() for p in none["params"]} == {1} and none["weight_decay"] == 0


def ramp(n=64, side=16):
    """Every pixel has a value of its own, so that a shift can be read off."""
    return (1 + torch.arange(side * side, dtype=torch.float32)).reshape(1, 1, side, side).repeat(n, 2, 1, 1)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_augmented_images_are_shifted_and_mirrored_copies(name):
    x = ramp()
    out = AUGMENTATIONS[name](x, torch.Generator().manual_seed(0))
    assert out.shape == x.shape and out.is_contiguous(memory_format=torch.channels_last)
    padded = nn.functional.pad(x[0], (2, 2, 2, 2))
    shifts, mirrored = set(), 0
    for image in out:
        matches = [
            (top, left, flip)
            for flip in (False, True)
            for top in range(5)
            for left in range(5)
            if torch.equal(image.flip(2) if flip else image, padded[:, top : top + 16, left : left + 16])
        ]
        assert len(matches) == 1
        shifts.add(matches[0][:2])
        mirrored += matches[0][2]
    assert len(shifts) > 15
    assert 20 < mirrored < 44 if name == "crop-flip" else mirrored == 0


def test_augmentation_depends_on_its_generator_only():
    crop = AUGMENTATIONS["crop"]
    a, b, c = (crop(ramp(), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.out = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.out(self.drop(self.bn(x)))


def test_recalibration_measures_the_given_samples_and_changes_nothing_else():
    x = 5 + 3 * torch.randn((512, 3), generator=torch.Generator().manual_seed(0))
    model = Normed().train()
    model.drop.eval()
    model.bn.momentum = 0.25
    recalibrate(model, x, batch_size=128)
    batches = x.split(128)
    mean = torch.stack([b.mean(0) for b in batches]).mean(0)
    var = torch.stack([b.var(0) for b in batches]).mean(0)
    assert torch.allclose(model.bn.running_mean, mean, atol=1e-5)
    assert torch.allclose(model.bn.running_var, var, atol=1e-4)
    # With dropout on, the second layer would see twice the variance.
    assert torch.allclose(model.out.running_var, torch.ones(3), atol=0.05)
    assert model.bn.momentum == 0.25 and model.training and not model.drop.training
    before = model.bn.running_mean.clone()
    recalibrate(model, x, batch_size=128)
    assert torch.equal(before, model.bn.running_mean)


def test_recalibration_without_batchnorm_or_samples_does_nothing():
    recalibrate(nn.Linear(3, 2), torch.randn(4, 3))
    model = Normed()
    model.bn.running_mean.fill_(3)
    recalibrate(model, torch.randn(0, 3))
    assert model.bn.running_mean.tolist() == [3, 3, 3]


def test_evaluation_is_in_eval_mode_and_independent_of_the_batch_size():
    model = Normed().train()
    x = torch.randn((50, 3), generator=torch.Generator().manual_seed(0))
    out = logits(model, x, batch_size=7)
    assert torch.allclose(out, logits(model, x)) and not out.requires_grad
    assert torch.allclose(out, logits(model, x, precision="bf16"), atol=0.05)
    assert model.training and model.bn.num_batches_tracked == 0
    y = out.argmax(1)
    y[:10] = (y[:10] + 1) % 3
    assert evaluate(model, x, y) == pytest.approx(0.8)
    with pytest.raises(ConfigError, match="not 50 and 3"):
        evaluate(model, x, y[:3])
