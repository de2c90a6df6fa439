"""Quantization: what is rounded, what is left alone, and that training sees it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantization, Quantize, apply, calibrate, load, open_model, plain, save


class Block(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(8, 7)

    def forward(self, x):
        x = F.max_pool2d(self.blocks(F.relu(self.stem(x))), 2)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


LAYERS = ["stem", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "fc"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def x():
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def points(model):
    return {k[0] for k in Quantization.of(model).plan.points}


def test_everything_int8_rounds_every_edge_but_the_output(net, x):
    small = apply(net, Policy(dict.fromkeys(LAYERS, Quantize())), x)
    assert points(small) == {
        "input", "relu", "blocks.0.relu", "blocks.0.bn2", "blocks.0.relu_1", "blocks.1.relu", "blocks.1.bn2",
        "blocks.1.relu_1", "max_pool2d", "adaptive_avg_pool2d", "flatten",
    }  # fmt: skip
    plan = Quantization.of(small).plan
    assert {plan.points[k, 0] for k in ("blocks.1.relu_1", "max_pool2d", "flatten")} == {("blocks.1.add", 0)}
    assert Quantization.of(small).asked() == dict.fromkeys(LAYERS, "int8")


def test_an_add_follows_its_producers(net, x):
    int8 = {k: Quantize() for k in LAYERS if k not in ("blocks.0.conv2", "blocks.1.conv1")}
    small = apply(net, Policy(int8), x)
    assert not {"blocks.0.bn2", "blocks.0.relu_1"} & points(small)  # an fp32 producer: the sum stays fp32
    named = apply(net, Policy(int8 | {"blocks.0.add": Quantize()}), x)
    assert {"blocks.0.bn2", "blocks.0.relu_1"} <= points(named)
    kept = apply(net, Policy({"*": Quantize(), "blocks.0.add": Quantize(32, 32)}), x)
    assert "blocks.0.bn2" in points(kept) and Quantization.of(kept).plan.points["blocks.0.relu_1", 0]


def test_a_concatenation_has_one_scale():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)

        def forward(self, x):
            return self.c(torch.cat([self.a(x), torch.relu(self.b(x))], 1))

    plan = Quantization.of(apply(Two(), Policy({"*": Quantize()}), torch.randn(3, 4))).plan
    assert plan.points["a", 0] == plan.points["relu", 0] == plan.points["cat", 0] == ("cat", 0)


def test_weights_and_activations_take_at_most_their_number_of_values(net, x):
    small = apply(net, Policy({"blocks.0.conv1": Quantize(3, 4)}), x)
    calibrate(small, [x])
    seen = {}
    small.blocks[0].bn1.register_forward_pre_hook(lambda m, a: seen.update(y=a[0]))
    small(x)
    q = Quantization.of(small)
    weight = q.weights["blocks.0.conv1"](net.blocks[0].conv1.weight)
    assert all(len(channel.unique()) <= 7 for channel in weight)
    assert len(q.activations["stem", 0](F.relu(net.stem(x))).unique()) <= 16
    expected = F.conv2d(q.activations["stem", 0](F.relu(net.stem(x))), weight, padding=1)
    assert torch.allclose(seen["y"], expected, atol=1e-6)


def test_full_precision_entries_change_nothing(net, x):
    assert torch.equal(apply(net, Policy({"*": Quantize(32, 32)}), x)(x), net(x))


def test_bf16_rounds_operands(net, x):
    small = apply(net, Policy({"fc": Quantize(16, 16)}), x)
    features = F.adaptive_avg_pool2d(F.max_pool2d(net.blocks(F.relu(net.stem(x))), 2), 1).flatten(1)
    low = F.linear(features.bfloat16().float(), net.fc.weight.bfloat16().float(), net.fc.bias)
    assert torch.equal(small(x), low) and Quantization.of(small).asked() == {"fc": "bf16"}


@pytest.mark.parametrize("act_bits", [1, 2])
def test_a_1_bit_layer_rounds_what_it_reads_and_nothing_else(net, x, act_bits):
    small = apply(net, Policy({"blocks.0.*": Quantize(1, act_bits)}), x)
    names = ("blocks.0.conv1", "blocks.0.conv2")
    assert Quantization.of(small).asked() == dict.fromkeys(names, f"w1a{act_bits}")
    assert points(small) == set()  # the add it names follows its producers, which are not rounded
    calibrate(small, [x])
    hook = Quantization.of(small).bits["blocks.0.conv1"]
    read = F.relu(small.stem(x))  # outside the network's own call, where nothing is hooked
    assert len(hook.activation(read).unique()) == 2**act_bits
    seen = {}
    small.blocks[0].bn1.register_forward_pre_hook(lambda m, a: seen.update(y=a[0]))
    small(x)
    weight = small.blocks[0].conv1.weight
    signs = torch.where(weight >= 0, 1.0, -1.0) * weight.abs().mean((1, 2, 3), keepdim=True)
    assert torch.allclose(seen["y"], F.conv2d(hook.activation(read), signs, padding=1), atol=1e-5)


def test_gradients_reach_weight_and_step_of_a_1_bit_layer(net, x):
    small = apply(net, Policy({"blocks.1.conv1": Quantize(1, 1)}), x)
    calibrate(small, [x])
    small.train()(x).square().sum().backward()
    step = Quantization.of(small).bits["blocks.1.conv1"].activation.scale
    assert small.blocks[1].conv1.weight.grad.abs().sum() > 0 and step.grad.abs() > 0
    assert small.stem.weight.grad.abs().sum() > 0
    Quantization.of(small).freeze()
    small.zero_grad()
    small(x).square().sum().backward()
    assert step.grad is None


def test_calibration_renews_the_statistics_of_a_1_bit_network_only(net, x):
    for technique, renewed in ((Quantize(1, 2), True), (Quantize(), False)):
        small = apply(net, Policy({"blocks.0.conv1": technique}), x)
        calibrate(small, [x, (x + 1,)])
        assert torch.equal(small.blocks[0].bn1.running_mean, net.blocks[0].bn1.running_mean) is not renewed
        assert not small.training and small.blocks[0].bn1.momentum == 0.1
    seen = []
    small = apply(net, Policy({"blocks.0.conv1": Quantize(1, 2)}), x)
    calibrate(small, [x])
    small.blocks[0].bn1.register_forward_hook(lambda m, a, y: seen.append(y))
    small(x)
    assert seen[0].mean((0, 2, 3)).abs().max() < 1e-4  # normalised as its layer now computes


def test_1_bit_activations_need_1_bit_weights():
    with pytest.raises(ConfigError, match="act_bits 1 needs weight_bits 1"):
        Quantize(4, 1)
    assert Quantize.of("w1a1") == Quantize(1, 1) and Quantize(1, 2).precision == "w1a2"


def test_1_bit_beside_8_bit_layers(net, x):
    small = apply(net, Policy({"*": Quantize(), "blocks.0.conv2": Quantize(1, 1)}), x)
    assert Quantization.of(small).plan.points["blocks.0.relu", 0]  # its input is int8 as conv1's result
    assert Quantization.of(small).asked()["blocks.0.conv2"] == "w1a1"


def test_the_given_model_and_its_keys_are_untouched(net, x):
    before = copy.deepcopy(net.state_dict())
    small = apply(net, Policy({"*": Quantize()}), x)
    calibrate(small, [x])
    small.train()(x)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert set(before) <= set(small.state_dict()) and not hasattr(net, "netfit_hooks")


def test_plain_copy_computes_the_original(net, x):
    small = apply(net, Policy({"*": Quantize()}), x)
    calibrate(small, [x])
    assert not torch.equal(small(x), net(x)) and torch.equal(plain(small)(x), net(x))


def test_deep_copies_are_independent(net, x):
    small = apply(net, Policy({"*": Quantize()}), x)
    calibrate(small, [x])
    twin = copy.deepcopy(small)
    expected = twin(x)
    with torch.no_grad():
        small.fc.weight.zero_()
    assert torch.equal(twin(x), expected) and not torch.equal(small(x), expected)


def test_gradients_reach_every_weight(net, x):
    small = apply(net, Policy({"*": Quantize(4, 4)}), x)
    calibrate(small, [x])
    small.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in small.parameters())


def test_training_rounds_what_evaluation_rounds(net, x):
    """BatchNorm counts its batches in training: that must not take the layer's call site."""
    small = apply(net, Policy(dict.fromkeys(LAYERS, Quantize(4, 4))), x)
    calibrate(small, [x])
    seen = {}
    small.blocks[0].register_forward_hook(lambda m, a, y: seen.update(y=y))
    Quantization.of(small).freeze()
    small.train()(x)
    assert len(seen["y"].unique()) <= 16


def test_a_failing_forward_leaves_no_hook_behind(net, x):
    small = apply(net, Policy({"*": Quantize()}), x)
    calibrate(small, [x])
    expected = small(x)
    with pytest.raises(RuntimeError):
        small(torch.randn(1, 2, 5, 5))
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.equal(small(x), expected)


def test_calibration_without_data(net, x):
    with pytest.raises(ConfigError, match="no calibration data"):
        calibrate(apply(net, Policy({"*": Quantize()}), x), [])


def test_frozen_scales_do_not_follow_the_data(net, x):
    small = apply(net, Policy({"*": Quantize()}), x)
    calibrate(small, [x])
    Quantization.of(small).freeze()
    before = {k: q.scale.clone() for k, q in Quantization.of(small).activations.items()}
    small.train()(10 * x)
    assert all(torch.equal(q.scale, before[k]) for k, q in Quantization.of(small).activations.items())


def test_artifact_of_a_built_in_model(tmp_path):
    torch.manual_seed(0)
    model, _ = open_model("lenet5", num_classes=7)
    x = torch.randn(2, 1, 28, 28)
    policy = Policy({"*": Quantize()})
    small = apply(model.eval(), policy, x)
    calibrate(small, [x])
    save(small, tmp_path / "m", spec="lenet5", num_classes=7, example_inputs=[x], policy=policy)
    again = load(tmp_path / "m")
    assert torch.equal(again.model(x), small(x)) and again.policy == policy
    assert torch.equal(open_model(str(tmp_path / "m"))[0](x), small(x))


def test_artifact_of_a_users_model_needs_the_network(tmp_path, net, x):
    save(net, tmp_path / "m", spec="nets.py:Net", example_inputs=[x])
    with pytest.raises(ConfigError, match=r"made from 'nets.py:Net'.*give the original network"):
        load(tmp_path / "m")
    assert torch.equal(load(tmp_path / "m", model=Net()).model(x), net(x))
