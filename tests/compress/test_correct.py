"""Networks without BatchNorm get their means and deviations back after pruning."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netfit.compress import plan_channels, search_space, slice_model
from netfit.compress._correct import correct, moments, needs_correction
from netfit.compress._evaluate import Evaluator
from netfit.compress._slice import keep_best, kept_axes
from netfit.train import fit

from .toys import BitOps
from .zoo import ZOO
from .zoo import build as zoo


def pruned(name):
    model, x = zoo(name)
    x = torch.randn(64, *ZOO[name][1][1:])
    plan = plan_channels(model, x[:2])
    torch.manual_seed(1)
    picks = {g.name: keep_best(g, g.fit(0.5), torch.rand(g.size)) for g in plan.free}
    small = slice_model(model, plan, picks)
    axes = kept_axes(model, ((plan[g], p) for g, p in picks.items()))
    kept = {n.removesuffix(".weight"): i for (n, dim, _), i in axes.items() if dim == 0}
    return model, small, kept, x


@pytest.mark.parametrize("name", ["shared", "straddle", "keyword", "encoder", "recurrent"])
def test_results_have_the_moments_they_had(name):
    model, small, kept, x = pruned(name)
    wanted = moments(model, x)
    correct(small, wanted, kept, x)
    found = moments(small, x)
    assert found.keys() == wanted.keys()
    for layer, (mean, std) in found.items():
        index = kept.get(layer, torch.arange(len(mean)))
        module = small.get_submodule(layer)
        if module.bias is None:
            continue
        assert torch.allclose(mean, wanted[layer][0][index], atol=1e-3), layer
        before = wanted[layer][1][index]
        assert (torch.isclose(std, before, rtol=1e-2) | (std < before)).all(), layer  # some would be blown up too far
    assert not any(m._forward_hooks for m in small.modules())


def test_only_networks_without_batch_norm_need_it():
    assert needs_correction(zoo("shared")[0]) and not needs_correction(zoo("vgg")[0])


def test_scores_tell_more_with_it():
    torch.manual_seed(0)
    x = torch.randn(2000, 12)
    labels = (x[:, :4] * x[:, 4:8]).sum(1).sign().add(1).div(2).long() + 2 * (x[:, 8] > 0)
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    fit(net, (x, labels), epochs=30, lr=0.1, batch_size=64, weight_decay=0, seed=0, precision="fp32")
    space = search_space(net, x[:2], target=BitOps(), methods=["prune"])
    evaluator = Evaluator(net, space, x[:256], (x, labels))
    candidates = [space.uniform(share) for share in (0.75, 0.5, 0.375)]
    with_it = [evaluator.score(evaluator.build(c)) for c in candidates]
    evaluator._moments = None
    without = [evaluator.score(evaluator.build(c)) for c in candidates]
    loss = [F.cross_entropy(net(x), labels).item()]
    assert loss[0] < 1 and sum(with_it) > sum(without), (with_it, without)
