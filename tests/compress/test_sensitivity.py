"""Sensitivity rows: what is measured, in which order, and against what."""

import copy

import pytest
import torch
import torch.nn.functional as F

from netfit.compress import Prune, plan_channels, sensitivity, slice_model
from netfit.errors import ConfigError
from netfit.surgery import Quantize
from netfit.train import logits, recalibrate

from .zoo import build


def test_rows_hold_every_group_fraction_and_precision_once() -> None:
    model, _ = build("residual")
    x = torch.randn(32, 3, 8, 8)
    before = copy.deepcopy(model.state_dict())
    seen = []
    rows = sensitivity(
        model,
        x,
        plan_channels(model, x[:2]),
        fractions=(0.75, 0.5, 0.49),
        precisions={"b1": [Quantize(8, 8), Quantize(2, 2)]},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [(r.name, r.technique) for r in rows] == [
        *[
            (n, Prune(keep=k))
            for n, s in [("stem", 8), ("a1", 12), ("b1", 16), ("b2", 16)]
            for k in (s * 3 // 4, s // 2)
        ],
        ("b1", Quantize(8, 8)),
        ("b1", Quantize(2, 2)),
    ]
    assert seen == [(i + 1, len(rows)) for i in range(len(rows))]
    kl = {(r.name, r.technique): r.kl for r in rows}
    assert all(value >= 0 for value in kl.values())
    assert kl["b1", Quantize(8, 8)] < kl["b1", Quantize(2, 2)]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_value_is_the_divergence_after_recalibration() -> None:
    model, _ = build("keyword")
    x = torch.randn(16, 6, 16)
    plan = plan_channels(model, x[:2])
    row = next(r for r in sensitivity(model, x, plan, fractions=(0.5,)) if r.name == "c2")
    small = slice_model(model, plan, {"c2": 7})
    recalibrate(small, x)
    p, q = F.softmax(logits(model, x), 1), F.softmax(logits(small, x), 1)
    assert row.kl == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-4)


def test_keeping_everything_costs_nothing_without_batch_norm() -> None:
    model, x = build("shared")
    assert [r.kl for r in sensitivity(model, x, plan_channels(model, x), fractions=(1.0,))] == [0.0, 0.0]


def test_bad_requests() -> None:
    model, x = build("shared")
    plan = plan_channels(model, x)
    with pytest.raises(ConfigError, match="above 0 and at most 1, not 0"):
        sensitivity(model, x, plan, fractions=(0.5, 0))
    with torch.no_grad():
        model.fc.bias[0] = float("nan")
    with pytest.raises(ConfigError, match="not finite"):
        sensitivity(model, x, plan)
