"""Policies: patterns, files, and mistakes that are all named at once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netfit.errors import ConfigError, UnsupportedLayerError
from netfit.surgery import CallHook, Policy, Quantize, Site, install, sites

NET = [
    Site("input", 0, "input", (1, 3, 8, 8)),
    Site("stem", 0, "conv2d", (1, 8, 8, 8)),
    Site("layer1.0.conv1", 0, "conv2d", (1, 8, 8, 8)),
    Site("layer1.0.add", 0, "add", (1, 8, 8, 8)),
    Site("layer1.0.relu", 0, "relu", (1, 8, 8, 8)),
    Site("fc", 0, "linear", (1, 10)),
]
BITS = st.sampled_from([(1, 8), (4, 4), (8, 8), (16, 16), (32, 32)])
PATTERNS = st.sampled_from(["*", "kind:conv2d", "layer1.*", "fc", 'odd "name"', "a.b[0]", "ümlaut"])


@given(st.dictionaries(PATTERNS, BITS.map(lambda b: Quantize(*b))))
def test_toml_and_dict_round_trips_are_the_identity(entries):
    policy = Policy(entries)
    assert Policy.from_toml(policy.to_toml()) == policy
    assert Policy.from_dict(policy.to_dict()) == policy
    assert list(Policy.from_toml(policy.to_toml())) == list(policy)


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_file_round_trip(tmp_path, suffix):
    policy = Policy({"*": Quantize(), "fc": Quantize(4, 8)})
    policy.save(tmp_path / f"p.{suffix}")
    assert Policy.load(tmp_path / f"p.{suffix}") == policy


def test_later_entries_override_and_wildcards_keep_to_the_kinds_a_technique_handles():
    chosen = Policy({"*": Quantize(), "layer1.*": Quantize(4, 8)}).resolve(NET)[Quantize]
    assert {s.name: t.weight_bits for s, t in chosen.items()} == {
        "stem": 8, "layer1.0.conv1": 4, "layer1.0.add": 4, "fc": 8,
    }  # fmt: skip


def test_kind_patterns():
    chosen = Policy({"kind:conv*": Quantize()}).resolve(NET)[Quantize]
    assert [s.name for s in chosen] == ["stem", "layer1.0.conv1"]


def test_patterns_without_a_site_are_all_named_with_the_nearest_ones():
    with pytest.raises(ConfigError, match=r"'stemm'.*did you mean 'stem'.*'layer2\.\*'"):
        Policy({"stemm": Quantize(), "layer2.*": Quantize()}).resolve(NET)


def test_a_site_of_the_wrong_kind_says_what_the_technique_handles():
    with pytest.raises(UnsupportedLayerError, match=r"quantize at 'layer1.0.relu' finds only relu; it handles add"):
        Policy({"layer1.0.relu": Quantize()}).resolve(NET)


def test_five_mistakes_in_a_file_are_five_paths(tmp_path):
    (tmp_path / "p.toml").write_text(
        """
        [policy."layer*.conv1"]
        quantise = {weight_bits = 8}
        [policy."a"]
        quantize = {weigth_bits = 8}
        [policy."b"]
        quantize = {weight_bits = "8"}
        [policy."c"]
        quantize = {weight_bits = 9}
        [policy."d"]
        quantize = 8
        """
    )
    with pytest.raises(ConfigError) as caught:
        Policy.load(tmp_path / "p.toml")
    text = str(caught.value)
    assert "5 mistakes" in text and "\n" not in text
    for part in [
        'policy."layer*.conv1".quantise', "did you mean 'quantize'?", 'policy."a".quantize.weigth_bits',
        "did you mean 'weight_bits'", 'policy."b".quantize.weight_bits', "found '8'", 'policy."c".quantize',
        "weight_bits must be one of", 'policy."d".quantize', "found 8",
    ]:  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[policy", "is not TOML"),
        ("", "found nothing"),
        ("[rules]", "found 'rules'"),
        ("policy = 3", "must hold tables"),
    ],
)
def test_files_that_are_no_policy(tmp_path, text, message):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Policy.load(tmp_path / "p.toml")


def test_missing_file():
    with pytest.raises(ConfigError, match="cannot read policy nowhere"):
        Policy.load("nowhere.toml")


@pytest.mark.parametrize("value", [3, "quantize", [Quantize(), Quantize(4, 4)]])
def test_entries_that_are_no_techniques(value):
    with pytest.raises(ConfigError):
        Policy({"*": value if isinstance(value, list) else [value]})


@pytest.mark.parametrize("bits", [(0, 8), (9, 8), (8, 1), (16, 8), (8, 16), (8, 32)])
def test_bits_outside_the_ladder(bits):
    with pytest.raises(ConfigError, match="bits"):
        Quantize(*bits)


def test_sites_cover_functional_calls_and_leave_the_model_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x):
            return self.bn(torch.relu(self.fc(x)) + self.fc(x))

    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = sites(net, torch.randn(2, 4))
    assert [s.key for s in found] == [("input", 0), ("fc", 0), ("relu", 0), ("fc", 1), ("add", 0), ("bn", 0)]
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_sites_of_a_model_that_does_not_run():
    with pytest.raises(ConfigError, match=r"Linear does not run on inputs of shape \(2, 5\)"):
        sites(nn.Linear(4, 4), torch.randn(2, 5))


def test_several_hooks_at_the_input_act_one_after_the_other():
    class Add(CallHook):
        def after(self, result):
            return result + 1

    net = nn.Identity()
    install(net, {("input", None): Add(), ("input", 0): [Add(), Add()]})
    assert net(torch.zeros(2)).tolist() == [3.0, 3.0]
