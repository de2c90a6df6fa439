"""Channel groups of every kind of network, and what a network that cannot be planned says."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.compress import ChannelPlan, plan_channels, slice_model
from netfit.errors import ConfigError, UnsupportedLayerError

from .zoo import ZOO, build

# Layers by group: which output channels can only go together. Groups not listed hold one layer.
COUPLED = {
    "residual": [("stem", "a2"), ("b2", "short")],
    "mobilenet": [("stem.0", "project.0"), ("expand.0", "depth.0", "excite")],
    "shared": [("stem", "again")],
    "encoder": [("embed", "encoder.layers.0.linear2", "encoder.layers.1.linear2")],
    "shuffle": [("stem", "branch2")],
    "keyword": [("c2", "c3")],
    "straddle": [("a", "b", "c", "d")],
}


def plan_of(name: str) -> ChannelPlan:
    model, x = build(name)
    return plan_channels(model, x)


@pytest.mark.parametrize("name", ZOO)
def test_layers_are_grouped_as_their_channels_meet(name: str) -> None:
    plan = plan_of(name)
    assert [g.layers for g in plan if len(g.layers) > 1] == COUPLED.get(name, [])
    model, _ = build(name)
    kinds = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    layers = [n for n, m in model.named_modules() if isinstance(m, kinds) and not n.endswith("out_proj")]
    assert sorted(layer for g in plan for layer in g.layers) == sorted(layers)
    assert all(g.name == g.layers[0] for g in plan)


@pytest.mark.parametrize("name", ZOO)
def test_only_the_output_and_the_channel_split_are_frozen(name: str) -> None:
    frozen = {g.name: g.frozen for g in plan_of(name) if g.frozen}
    assert list(frozen.values()).count("network output") == 1
    others = [reason for reason in frozen.values() if reason != "network output"]
    assert len(others) == (name == "shuffle")
    assert all("channel split" in reason for reason in others)


def test_channels_seen_by_blocks_have_a_divisor() -> None:
    assert {g.name: g.divisor for g in plan_of("grouped")} == {"stem": 3, "wide": 3, "up": 3, "tail": 4, "fc": 1}
    assert plan_of("encoder")["embed"].divisor == 4  # heads


def test_straddling_concatenations_make_one_group_of_all_their_channels() -> None:
    assert plan_of("straddle")["a"].size == 12


def test_planning_leaves_the_model_alone() -> None:
    model, x = build("residual")
    model.train().requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        assert len(plan_channels(model, x).free) == 4
    assert all(m.training for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_ignored_layers_freeze_their_group() -> None:
    model, x = build("residual")
    plan = plan_channels(model, x, ignore=["a*", "short"])
    assert [g.name for g in plan.free] == ["b1"]
    assert plan["stem"].frozen == "ignored by pattern 'a*'"
    with pytest.raises(ConfigError, match="'sort' matches no layer; did you mean 'short'"):
        plan_channels(model, x, ignore=["sort"])


class Split(nn.Module):
    """A frozen case: x is used whole and split."""

    def __init__(self) -> None:
        super().__init__()
        self.pre, self.rnn, self.skip = nn.Linear(6, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        return self.skip(x + self.rnn(x)[0])


class Gated(nn.Module):
    """A GRU read by its last state; torch-pruning by itself walks in circles through its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.pre, self.rnn, self.post, self.fc = nn.Linear(6, 8), nn.GRU(8, 7), nn.Linear(7, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.post(self.rnn(self.pre(x))[1][0])))


class Unrolled(nn.Module):
    """A recurrence written out by hand: the state goes around through chunks of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.fc = nn.Linear(14, 16), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for t in range(x.shape[1]):
            gate, new = self.step(torch.cat([x[:, t], h], 1)).chunk(2, 1)
            h = h + torch.sigmoid(gate) * torch.tanh(new)
        return self.fc(h)


class Padded(nn.Module):
    """The shortcut of the first ResNet paper for CIFAR-10: zeros instead of a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.b(F.relu(self.a(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.fc(F.relu(y).mean((2, 3)))


class Fixed(nn.Module):
    """A number of channels written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wide, self.fc = nn.Conv2d(3, 8, 3, 1, 1), nn.Linear(512, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.wide(F.relu(self.conv(x)).view(-1, 512))))


class Features(nn.Module):
    """Returns what it computed on the way, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.a(x))
        return {"features": x, "out": self.c(F.relu(self.b(x)))}


IMAGE, SEQUENCE = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 6)


@pytest.mark.parametrize(
    ("factory", "x", "group", "reason"),
    [
        (Split, SEQUENCE, "pre", "LSTM 'rnn' cannot be sliced"),
        (Padded, IMAGE, "stem", "torch-pruning maps its channels outside"),
        (Fixed, IMAGE, "conv", "invalid for input.*runs through reshape"),
        (Features, IMAGE, "a", "network output"),
    ],
)
def test_what_cannot_be_pruned_is_frozen_with_its_reason(factory, x: Tensor, group: str, reason: str) -> None:
    model = factory()
    plan = plan_channels(model, x)
    assert plan[group].frozen is not None
    with pytest.raises(UnsupportedLayerError, match=f"'{group}' cannot be pruned: .*{reason}"):
        slice_model(model, plan, {group: 1})
    pruned = slice_model(model, plan, {g.name: g.fit(0.6) for g in plan.free})
    pruned(x)


def test_layers_around_a_recurrent_layer_are_free() -> None:
    model = Gated()
    plan = plan_channels(model, SEQUENCE)
    assert [g.name for g in plan.free] == ["pre", "post"]
    assert slice_model(model, plan, {"pre": 3, "post": 4}).rnn.input_size == 3


def test_tied_weights_are_sliced_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.out = nn.Embedding(11, 16), nn.Linear(16, 16), nn.Linear(16, 11, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.embed(x) + self.mix(self.embed(x)))

    x = torch.randint(0, 11, (2, 4))
    model = Tied()
    small = slice_model(model, plan_channels(model, x), {"mix": 10})
    assert small.out.weight is small.embed.weight
    assert small.embed.weight.shape == (11, 10)
    assert small(x).shape == (2, 4, 11)


def test_a_network_that_does_not_run_or_cannot_be_traced_says_so_in_one_line() -> None:
    model, _ = build("residual")
    with pytest.raises(ConfigError, match=r"Residual does not run on example inputs of shape \(2, 5\)") as e:
        plan_channels(model, torch.randn(2, 5))
    assert "\n" not in str(e.value)

    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).detach()

    with pytest.raises(UnsupportedLayerError, match="no layer of Detached reaches its outputs"):
        plan_channels(Detached(), IMAGE)
    with pytest.raises(UnsupportedLayerError, match="cannot find the channel groups of Unrolled"):
        plan_channels(Unrolled(), SEQUENCE)


def test_unknown_names_suggest_the_nearest() -> None:
    plan = plan_of("residual")
    with pytest.raises(ConfigError, match="did you mean 'stem'"):
        plan["stam"]
    with pytest.raises(ConfigError, match="did you mean 'short'"):
        plan.group_of("shor")
    assert plan.group_of("short").name == "b2"
