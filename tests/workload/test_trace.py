"""Traced operators carry the right names, edges and counts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netfit.errors import ArtifactError, ConfigError, UnsupportedLayerError
from netfit.workload import CallSites, Workload, trace


class Block(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.act = nn.ReLU()

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.act(self.conv2(y))
        y = self.act(self.conv2(y))
        y += x
        return F.relu(y)


class Mixed(nn.Module):
    """Residual blocks, pooling, attention, a recurrent layer and an einsum in one net."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(), Block())
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.mix = nn.Parameter(torch.randn(5, 6))
        self.fc = nn.Linear(6, 7)

    def forward(self, x):
        x = F.max_pool2d(self.blocks(self.stem(x)), 2).flatten(2).transpose(1, 2)
        x = self.attention(x, x, x, need_weights=False)[0]
        x = self.lstm(x)[0]
        return self.fc(torch.einsum("bij,jk->bik", x, self.mix).mean(1))


ZOO = [
    (nn.Sequential(nn.Conv1d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv1d(6, 6, 3, groups=6)), (2, 3, 32)),
    (nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4)), (1, 2, 6, 6, 6)),
    (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.ReLU()), (2, 4, 5, 5)),
    (nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)), (2, 7, 5)),
    (Block(), (1, 4, 8, 8)),
]


@pytest.mark.parametrize(("model", "shape"), ZOO, ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else None)
def test_macs_equal_the_flop_counter(model, shape):
    model = model.eval()
    x = torch.randn(shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    assert trace(model, x).totals()["macs"] * 2 == counter.get_total_flops()


def test_attention_counts_scores_and_mixing():
    """The flop counter does not know the CPU's fused attention, so this one is by hand."""
    model, (batch, tokens, width, hidden) = (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        (2, 5, 8, 16),
    )
    linear = batch * tokens * width * (3 * width + width + 2 * hidden)
    assert trace(model, torch.randn(batch, tokens, width)).totals()["macs"] == linear + 2 * batch * tokens**2 * width


def test_every_gemm_sums_to_the_macs_of_its_operator():
    for op in trace(Mixed(), torch.randn(2, 3, 16, 16)):
        assert sum(g.macs for g in op.gemms()) == op.macs


def test_names_are_module_paths_and_functional_places():
    keys = [op.key for op in trace(Mixed(), torch.randn(1, 3, 16, 16))]
    assert len(set(keys)) == len(keys)
    for expected in [
        ("blocks.0.relu", 0), ("blocks.0.add", 0), ("blocks.0.relu_1", 0), ("blocks.0.conv2", 0),
        ("blocks.0.conv2", 1), ("blocks.0.act", 1), ("max_pool2d", 0), ("attention.attention", 0),
        ("lstm", 0), ("einsum", 0), ("fc", 0),
    ]:  # fmt: skip
        assert expected in keys


def test_eager_and_exported_names_agree():
    model = Mixed().eval()
    eager = []
    with CallSites(model, lambda site, f, a, k: (eager.append(site[:2]), f(*a, **k))[1]), torch.no_grad():
        model(torch.randn(1, 3, 16, 16))
    traced = [op.key for op in trace(model, torch.randn(1, 3, 16, 16)) if ":" not in op.name]
    assert traced == eager


def test_edges_follow_in_place_operations():
    ops = {op.key: op for op in trace(Block(), torch.randn(1, 4, 8, 8))}
    added = ops["add", 0]
    assert added.inputs[0].name == ops["act", 1].outputs[0].name
    assert ops["relu_1", 0].inputs[0].name == added.outputs[0].name


def test_in_place_relu_whose_result_is_dropped_still_rules_the_edge():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            y = self.a(x)
            self.relu(y)
            return self.b(y)

    ops = {op.name: op for op in trace(Net(), torch.randn(1, 4))}
    assert ops["b"].inputs[0].name == ops["relu"].outputs[0].name


def test_weights_are_named_by_their_state_dict_key():
    model = Mixed()
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    for op in trace(model, torch.randn(1, 3, 16, 16)):
        for spec in op.params.values():
            assert shapes[spec.name] == spec.shape


def test_parameters_are_those_of_the_model():
    model = Mixed()
    totals = trace(model, torch.randn(1, 3, 16, 16)).totals()
    assert totals["params"] == sum(p.numel() for p in model.parameters())


def test_training_flag_and_statistics_stay():
    model = Block().train()
    model.bn1.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trace(model, torch.randn(1, 4, 8, 8))
    assert model.training and not model.bn1.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_json_round_trip_is_the_identity():
    workload = trace(Mixed(), torch.randn(1, 3, 16, 16))
    assert Workload.from_json(workload.to_json()) == workload


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', '{"format": 1, "ops": [{}]}'])
def test_damaged_json_is_an_artifact_error(text):
    with pytest.raises(ArtifactError, match="not a workload"):
        Workload.from_json(text)


def test_wrong_shape_names_model_and_shape():
    with pytest.raises(ConfigError, match=r"Block does not run on inputs of shape \(1, 3, 8, 8\)"):
        trace(Block(), torch.randn(1, 3, 8, 8))


def test_data_dependent_control_flow_is_one_clear_line():
    class Net(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(UnsupportedLayerError, match="Net cannot be exported") as caught:
        trace(Net(), torch.randn(3))
    assert "\n" not in str(caught.value)


def test_views_move_no_bytes_and_shared_weights_count_once():
    shared = nn.Linear(4, 4)
    workload = trace(nn.Sequential(shared, nn.Flatten(), shared), torch.randn(2, 4))
    assert workload.totals()["params"] == 20
    assert [op.act_bytes for op in workload if op.kind == "flatten"] == [0] * sum(
        op.kind == "flatten" for op in workload
    )
    assert [op.key for op in workload if op.kind == "linear"] == [("0", 0), ("0", 1)]


def test_the_most_activations_alive_at_one_time():
    workload, one = trace(Block(), torch.randn(1, 4, 6, 6)), 4 * 6 * 6 * 4
    # at conv2: what it reads and writes, and the input, which waits for the addition
    assert workload.peak_act_bytes() == 3 * one
    low = {op.key: 8 for op in workload}
    assert workload.peak_act_bytes(low) == one + 2 * one // 4
    assert workload.peak_act_bytes(low | {("input", 0): 8}) == 3 * one // 4
    chain = nn.Sequential(nn.Linear(8, 100), nn.ReLU(), nn.Flatten(), nn.Linear(100, 10))
    found = trace(chain, torch.randn(1, 8))
    assert found.peak_act_bytes() == 4 * 110, "neither a ReLU nor a view takes memory of its own"
