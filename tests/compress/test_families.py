"""Classic methods by name, as jobs and as policies."""

import json

import pytest
import torch
from torch import nn

from netfit.compress import Prune, Settings, compress, family_policy, search_space
from netfit.compress._families import family, uniform_precision
from netfit.compress._learned import THRESHOLD, gated, ranked_candidate, ungated
from netfit.errors import ConfigError, UnsupportedLayerError
from netfit.models import build
from netfit.runs import Run
from netfit.surgery import Policy, Quantize
from netfit.targets import parse

from .toys import BitOps
from .zoo import build as zoo

X = torch.zeros(2, 1, 8, 8)


def job(path, name, goal=1.0, target=None, **settings):
    with Run.open(path, "compress", {"goal": goal}, 0) as run:
        chosen = Settings(family=name, trials=4, epochs=1, train_epochs=4, **settings)
        return compress("digits-cnn", "digits", target or BitOps(), goal, run, chosen)


def test_policies_of_families():
    net = build("digits-cnn")
    low = family_policy("uniform-w4a8", net, X)
    assert [low[n][0].precision for n in ("conv1", "conv2", "conv3", "fc")] == ["int8", "w4a8", "w4a8", "int8"]
    assert set(family_policy("uniform-bf16", net, X).values()) == {(Quantize(16, 16),)}
    assert family_policy("magnitude", net, X) == Policy({n: Prune(sparsity=0.5) for n in ("conv1", "conv2")})
    both = family_policy("magnitude-0.25+int8", net, X)
    assert both["conv1"] == (Prune(sparsity=0.25), Quantize()) and both["fc"] == (Quantize(),)
    with pytest.raises(UnsupportedLayerError, match="finds no layer it can act on"):
        family_policy("magnitude", nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 3))


def test_any_technique_is_a_family_of_structural_replacement():
    replaces = family("quantize").replaces  # stands for a structured matrix: a technique with its default settings
    assert replaces == Policy({"*": Quantize()})
    with pytest.raises(ConfigError, match="no family and no technique is called 'learnd'; did you mean 'learned'"):
        family("learnd")


def test_a_precision_the_target_does_not_run_is_refused_with_those_it_does():
    macs = parse("macs")
    space = search_space(build("digits-cnn").eval(), X, target=macs)
    with pytest.raises(ConfigError, match=r"macs does not run conv2d layers such as 'conv1' at int8; it runs fp32"):
        uniform_precision(space, "int8", macs)
    kept = uniform_precision(space, "w2a8", BitOps(), ignore=["conv2"])
    assert kept.precisions["conv2"] == ("fp32",) and kept.precisions["conv3"] == ("w2a8",)


@pytest.mark.parametrize(("name", "ratio"), [("uniform-int8", 0.25), ("uniform-w4a8", None)])
def test_uniform_quantization_is_one_trial_and_a_retraining(tmp_path, name, ratio):
    result = job(tmp_path / "r", name)
    assert result["family"] == name and len(result["trials"]) == 1 and result["history"]
    assert {r["asked"] for r in result["layers"]} == ({"int8"} if ratio else {"int8", "w4a8"})
    assert result["final"]["accuracy"] > 0.5
    if ratio:
        assert result["final"]["ratio"] == pytest.approx(ratio, rel=0.05)
    assert Policy.load(tmp_path / "r" / "policy.toml")


@pytest.mark.parametrize("name", ["magnitude-0.5+int8", "learned-0.5", "distillation-0.5"])
def test_pruning_families_remove_a_share(tmp_path, name):
    result = job(tmp_path / "r", name)
    kept = [r["kept"] / r["channels"] for r in result["layers"][:-1]]
    assert sum(kept) / len(kept) == pytest.approx(0.5, abs=0.2) and len(result["trials"]) == 1 and result["history"]
    assert {r["asked"] for r in result["layers"]} == ({"int8"} if name.endswith("+int8") else {"fp32"})
    assert result["final"]["accuracy"] > 0.15


@pytest.mark.parametrize("name", ["magnitude-1.5", "learned-", "magnitude-0.5+int9"])
def test_shares_and_precisions_that_are_none(name):
    with pytest.raises(ConfigError, match=r"is no share of the channels|unknown precision 'int9'"):
        family(name)


@pytest.mark.parametrize("name", ["magnitude", "learned", "distillation"])
def test_pruning_families_meet_a_latency(tmp_path, name):
    result = job(tmp_path / "r", name, 0.4)
    assert result["final"]["met"] and 0.1 < result["final"]["ratio"] <= 0.4
    assert all(r["asked"] == "fp32" for r in result["layers"])
    assert {t["origin"] for t in result["trials"]} == {"uniform"} and len(result["trials"]) > 3
    assert json.loads((tmp_path / "r" / "policies.json").read_text()).keys() >= {"0", str(result["chosen"])}
    fractions = {r["kept"] / r["channels"] for r in result["layers"][:-1]}
    if name == "distillation":
        assert result["final"]["accuracy"] > 0.2  # one epoch from new weights
    else:
        assert result["final"]["accuracy"] > 0.4
    assert max(fractions) < 1 if name != "learned" else max(fractions) <= 1


def test_a_pruning_family_needs_a_goal(tmp_path):
    with pytest.raises(ConfigError, match=r"removes channels until a latency is met.*such as magnitude-0\.5"):
        job(tmp_path / "r", "magnitude")
    with pytest.raises(ConfigError, match="further targets are for searches"):
        job(tmp_path / "s", "uniform-int8", also=("macs",))


@pytest.mark.parametrize("name", ["residual", "dense", "encoder", "grouped"])
def test_gates_of_one_change_nothing_and_those_of_zero_prune(name):
    model, x = zoo(name)
    space = search_space(model, x, target=BitOps(), methods=["prune"])
    before = model(x).detach()
    gates = gated(model, space)
    assert gates and torch.equal(model(x), before)
    first = next(iter(gates))
    with torch.no_grad():
        gates[first][1] = THRESHOLD / 2
    assert not torch.allclose(model(x), before), "a gate below the threshold reads as zero"
    loss = model(x).square().sum()
    loss.backward()
    assert all(g.grad is not None and g.grad.abs().sum() > 0 for g in gates.values())
    after = model(x).detach()
    assert torch.allclose(ungated(model)(x), after, atol=1e-6)
    assert model.state_dict().keys() == zoo(name)[0].state_dict().keys()


def test_channels_are_ranked_over_all_groups():
    model, x = zoo("vgg")
    space = search_space(model, x, target=BitOps(), methods=["prune"])
    names = list(space.steps)
    gates = {n: torch.full((space.steps[n][-1],), 1.0 if i == 0 else 0.2) for i, n in enumerate(names)}
    keep = ranked_candidate(space, gates, 0.2).keep
    assert keep[names[0]] == space.steps[names[0]][-1]
    assert ranked_candidate(space, gates, 1.0).keep == space.uniform(1.0).keep
