"""fit: learning, determinism, resuming, distillation and refusals, on generated samples and small nets."""

import copy
import json

import pytest
import torch
from torch import nn

from netfit.errors import ArtifactError, ConfigError, JobError
from netfit.train import fit, logits
from netfit.train._fit import distillation

ARGUMENTS = dict(epochs=4, lr=0.03, batch_size=16, weight_decay=5e-4, seed=3, precision="fp32")


class Net(nn.Module):
    """Everything that has a state: convolution, BatchNorm, dropout, weights that share memory."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.tied = nn.Conv2d(8, 8, 1)
        self.tied_again = self.tied
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.relu(self.tied_again(self.tied(x)))
        return self.fc(nn.functional.dropout(x.amax((2, 3)), 0.1, self.training))


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


@pytest.fixture(scope="module")
def samples():
    """Bright spots, bars and crosses at random places, in noise."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(198) % 3
    x = 0.3 * torch.randn((198, 1, 8, 8), generator=generator)
    for i, c in enumerate(y):
        row, column = torch.randint(2, 6, (2,), generator=generator).tolist()
        x[i, 0, row, column] += 2
        if c >= 1:
            x[i, 0, row, column - 2 : column + 3] += 2
        if c == 2:
            x[i, 0, row - 2 : row + 3, column] += 2
    return x, y


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_learns_and_reports(samples):
    model, seen = net(), []
    history = fit(model, samples, **ARGUMENTS | {"epochs": 15}, validation=samples, progress=seen.append)
    assert history.validation[-1] > 0.9 and history.loss[-1] < 0.5 * history.loss[0]
    assert history.precision == "fp32" and not model.training
    assert all(len(getattr(history, k)) == 15 for k in ("loss", "accuracy", "validation", "seconds"))
    ends = [d for d in seen if "validation" in d]
    assert [d["epoch"] for d in ends] == list(range(1, 16))
    assert ends[-1]["step"] == ends[-1]["steps"] == 198 // 16
    json.dumps(seen)


def test_same_seed_same_weights_and_the_callers_random_state_is_kept(samples):
    runs = []
    for seed in (3, 3, 4):
        model = net()
        torch.manual_seed(99)
        fit(model, samples, **ARGUMENTS | {"seed": seed, "epochs": 2}, augment="crop-flip")
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(99))
        runs.append(state(model))
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


@pytest.mark.parametrize(("killed_at", "optimizer"), [(1, "sgd"), (3, "sgd"), (2, "adam")])
def test_killed_fit_resumes_to_the_same_bits(samples, tmp_path, killed_at, optimizer):
    keywords = ARGUMENTS | {"augment": "crop-flip", "teacher": net(1).eval(), "validation": samples}
    keywords["optimizer"] = optimizer
    whole = net()
    expected = fit(whole, samples, **keywords)

    def interrupt(epoch, model):
        if epoch == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(net(), samples, **keywords, checkpoint=tmp_path / "fit", on_epoch=interrupt)
    torch.manual_seed(12345)  # another process starts with another random state
    resumed = net(seed=7)
    epochs = []
    history = fit(
        resumed, samples, **keywords, checkpoint=tmp_path / "fit", on_epoch=lambda epoch, _: epochs.append(epoch)
    )
    assert same(state(whole), state(resumed))
    assert history.loss == expected.loss and history.validation == expected.validation
    assert epochs == [0, 1, 2, 3]
    finished = net(seed=8)
    again = fit(finished, samples, **keywords, checkpoint=tmp_path / "fit", progress=pytest.fail)
    assert same(state(whole), state(finished)) and again.loss == expected.loss


def test_bf16_runs_and_leaves_float32_weights(samples):
    model = net()
    history = fit(model, samples, **ARGUMENTS | {"precision": "bf16", "epochs": 1})
    assert history.precision == "bf16"
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())


def test_frozen_parameters_stay(samples):
    model = net()
    model.conv.requires_grad_(False)
    before = state(model)
    fit(model, samples, **ARGUMENTS | {"epochs": 1})
    after = state(model)
    assert torch.equal(before["conv.weight"], after["conv.weight"])
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    with pytest.raises(ConfigError, match="no parameter to train"):
        fit(model.requires_grad_(False), samples, **ARGUMENTS)


def test_hook_sees_training_mode_before_each_epoch(samples):
    model = net()

    def freeze_statistics(epoch, module):
        assert module.training
        if epoch >= 1:
            module.bn.eval()
            counts.append(int(module.bn.num_batches_tracked))

    counts = []
    fit(model, samples, **ARGUMENTS | {"epochs": 3}, on_epoch=freeze_statistics)
    assert counts == [12, 12] and model.bn.num_batches_tracked == 12


def test_distillation_pulls_towards_the_teacher(samples):
    teacher = net(5)
    fit(teacher, samples, **ARGUMENTS | {"epochs": 15})
    teacher.train()
    before = state(teacher)
    random_labels = samples[0], samples[1][torch.randperm(198, generator=torch.Generator().manual_seed(1))]
    agreement = {}
    for name, master in (("alone", None), ("taught", teacher)):
        model = net()
        fit(model, random_labels, **ARGUMENTS | {"epochs": 10}, teacher=master)
        agreement[name] = (logits(model, samples[0]).argmax(1) == samples[1]).float().mean()
    assert agreement["taught"] > agreement["alone"] + 0.2
    assert same(before, state(teacher)) and teacher.training


def test_distillation_loss_is_zero_for_equal_outputs_and_scales_with_temperature():
    out = torch.tensor([[1.0, 2.0, 3.0]])
    assert distillation(out, out).abs() < 1e-6
    other = out.flip(1)
    p, q = (other / 4).softmax(1), (out / 4).softmax(1)
    assert torch.isclose(distillation(out, other), 16 * (p * (p / q).log()).sum())


def test_nan_loss_names_epoch_step_and_rate(samples, tmp_path):
    x = samples[0].clone()
    x[50] = float("nan")
    with pytest.raises(JobError, match=r"loss is nan in epoch 1 of 4, step \d+ of 12, at learning rate 0\.\d"):
        fit(net(), (x, samples[1]), **ARGUMENTS, checkpoint=tmp_path / "fit")
    assert not (tmp_path / "fit").exists()


def test_exploding_rate_is_a_job_error_and_keeps_the_last_good_epoch(samples, tmp_path):
    def explode(epoch, model):
        if epoch == 2:
            with torch.no_grad():
                model.fc.weight.fill_(float("inf"))

    with pytest.raises(JobError, match="epoch 3"):
        fit(net(), samples, **ARGUMENTS, checkpoint=tmp_path / "fit", on_epoch=explode)
    model = net()
    fit(model, samples, **ARGUMENTS, checkpoint=tmp_path / "fit")
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": float("nan")}, "lr must be a positive number, not nan"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; did you mean 'bf16'"),
        ({"augment": "crop-flop"}, "unknown augmentation 'crop-flop'; did you mean 'crop-flip'"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_arguments(samples, change, message):
    with pytest.raises(ConfigError, match=message):
        fit(net(), samples, **ARGUMENTS | change)


def test_bad_samples(samples):
    x, y = samples
    for train, message in [
        ((x, y[:5]), "as many inputs as labels, not 198 and 5"),
        ((x[:0], y[:0]), "not 0 and 0"),
        ((x, y.float()), "labels must be int64"),
        ((x, y + 1), "3 outputs but labels go from 1 to 3"),
        ((x[:, :, 0], y), "does not accept inputs of shape"),
    ]:
        with pytest.raises(ConfigError, match=message) as e:
            fit(net(), train, **ARGUMENTS)
        assert "\n" not in str(e.value)
    with pytest.raises(ConfigError, match=r"must give logits \(batch, classes\), not \(2, 1, 8, 8\)"):
        fit(nn.Conv2d(1, 1, 1), samples, **ARGUMENTS)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(ConfigError, match="3 outputs but its teacher 5"):
        fit(net(), samples, **ARGUMENTS, teacher=flat)
    with pytest.raises(ConfigError, match=r"needs images \(n, C, H, W\)"):
        fit(nn.Linear(4, 3), (torch.randn(9, 4), y[:9]), **ARGUMENTS, augment="crop")


def test_fewer_samples_than_a_batch(samples):
    history = fit(net(), (samples[0][:5], samples[1][:5]), **ARGUMENTS)
    assert len(history.loss) == 4


def test_checkpoint_of_another_fit_is_refused(samples, tmp_path):
    path = tmp_path / "fit"
    fit(net(), samples, **ARGUMENTS | {"epochs": 1}, checkpoint=path)
    with pytest.raises(ConfigError, match=r"made with lr=0\.03, now 0\.2"):
        fit(net(), samples, **ARGUMENTS | {"epochs": 1, "lr": 0.2}, checkpoint=path)
    other = copy.deepcopy(net())
    other.fc = nn.Linear(8, 4)
    with pytest.raises(ConfigError, match=r"belongs to another model: size mismatch for fc\.weight"):
        fit(other, samples, **ARGUMENTS | {"epochs": 1}, checkpoint=path)
    (path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        fit(net(), samples, **ARGUMENTS | {"epochs": 1}, checkpoint=path)


def test_several_yes_or_no_outputs_are_learned_from_probabilities():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=generator)
    y = (x[:, :3] > 0).float() * 0.9 + 0.05
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    history = fit(model, (x, y), epochs=20, lr=0.5, batch_size=32, weight_decay=0, seed=0, validation=(x, y))
    assert history.accuracy[-1] > 0.95 and history.validation[-1] > 0.95
    with pytest.raises(ConfigError, match=r"targets must be \(n, 3\) from 0 to 1"):
        fit(model, (x, 2 * y), epochs=1, lr=0.5, batch_size=32, weight_decay=0, seed=0)
