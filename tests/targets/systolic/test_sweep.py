"""A sweep is every array counted on its own, only faster; best, robust and the map agree with brute force."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from netfit.errors import ConfigError
from netfit.search import pareto_mask
from netfit.targets import SystolicArray
from netfit.targets.systolic import SystolicConfig, _sweep, sweep

SPACE = {"rows": [4, 9, 16], "cols": [3, 8, 32], "accum_rows": [4, 256]}
CONFIGS = [
    SystolicConfig(1, 1),
    SystolicConfig(1, 1, dataflow="os", weight_load="serial", group_mode="block_diagonal"),
    SystolicConfig(1, 1, dataflow="is", dram_bytes_per_s=2e9, buffer_bytes=3000, act_bits=4),
]


def alone(workload, config, fields):
    return SystolicArray(replace(config, **fields)).gemms(workload)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_array_is_counted_as_if_alone(nets, config, monkeypatch):
    monkeypatch.setattr(_sweep, "_BLOCK", 16)  # several blocks along every axis
    result = sweep(nets, SPACE, config)
    for index in range(18):
        for name, workload in nets.items():
            cost, columns = alone(workload, config, result.array(index)), result.columns(name)
            for counter in ("cycles", "act_loads", "weight_loads", "inter_pe", "intra_pe", "accum_writes"):
                assert columns[counter][index] == getattr(cost, counter).sum(), counter
            for counter in ("energy_j", "buffer_bytes", "dram_bytes"):
                assert columns[counter][index] == pytest.approx(np.sum(getattr(cost, counter)), rel=1e-12), counter


def test_compat_is_swept_too(nets):
    found = sweep({"a": nets["attention"]}, {"rows": [4, 8], "cols": [4]}, compat="camuy")
    cost = SystolicArray(SystolicConfig(8, 4), "camuy").gemms(nets["attention"])
    assert found.networks["a"]["cycles"][1, 0] == cost.cycles.sum()


@pytest.mark.parametrize("objective", ["cycles", "energy_j", "edp", "pe_cycles"])
def test_robust_is_the_least_worst_regret(nets, objective):
    result = sweep(nets, SPACE)
    arrays = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]

    def value(workload, fields):
        cost = alone(workload, result.config, fields)
        cycles, energy = float(cost.cycles.sum()), float(cost.energy_j.sum())
        elements = fields["rows"] * fields["cols"]
        return {"cycles": cycles, "energy_j": energy, "edp": cycles * energy, "pe_cycles": cycles * elements}[objective]

    table = {name: [value(workload, fields) for fields in arrays] for name, workload in nets.items()}
    worst = [max(column[i] / min(column) - 1 for column in table.values()) for i in range(len(arrays))]
    robust = result.robust(objective)
    assert len(nets) >= 6
    assert robust["regret"] == pytest.approx(min(worst))
    assert worst[arrays.index({name: robust[name] for name in SPACE})] == pytest.approx(min(worst))
    assert robust["regret"] == max(robust["regrets"].values())
    for name in nets:
        best = result.best(name, objective)
        assert table[name][arrays.index({field: best[field] for field in SPACE})] == pytest.approx(min(table[name]))
    grid = np.reshape(worst, (3, 3, 2))
    assert result.heatmap("cols", "rows", objective) == pytest.approx(grid.min(2))
    assert result.heatmap("rows", "accum_rows", objective) == pytest.approx(grid.min(1).T)


def test_fewer_cycles_or_less_energy_is_a_choice(nets):
    columns = sweep({"net": nets["separable"]}, {"rows": range(4, 65, 4), "cols": range(4, 65, 4)}).columns("net")
    front = pareto_mask(np.stack([columns["cycles"], columns["energy_j"]], axis=1))
    assert 2 <= front.sum() < len(front)
    assert front[np.argmin(columns["energy_j"])]


def test_bits_change_bytes_and_nothing_else(nets):
    result = sweep({"net": nets["separable"]}, {"weight_bits": [4, 8], "rows": [8], "cols": [8, 16]})
    found = result.networks["net"]
    assert (found["cycles"][0] == found["cycles"][1]).all()
    assert (found["energy_j"][0] < found["energy_j"][1]).all()
    assert found["cycles"].shape == result.shape == (2, 1, 2)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "a sweep needs a field to change"),
        ({"row": [1]}, "'row' cannot be swept; did you mean 'rows'"),
        ({"rows": [4, 0]}, "rows = 0 of a sweep: allowed are whole numbers from 1 to 16384"),
        ({"rows": [4.5]}, r"rows = \[4.5\] of a sweep: allowed are whole numbers"),
        ({"cols": []}, "cols = .* of a sweep"),
    ],
)
def test_bad_spaces(nets, space, message):
    with pytest.raises(ConfigError, match=message):
        sweep({"net": nets["separable"]}, space)


def test_bad_questions(nets):
    result = sweep({"net": nets["separable"]}, {"rows": [4, 8], "cols": [4, 8]})
    with pytest.raises(ConfigError, match="did you mean 'cycles'"):
        result.best("net", "cycle")
    with pytest.raises(ConfigError, match="network 'nets' was not swept; did you mean 'net'"):
        result.values("nets", "cycles")
    with pytest.raises(ConfigError, match="heat map over x='cols', y='cols'"):
        result.heatmap("cols", "cols")
    with pytest.raises(ConfigError, match="at least one network"):
        sweep({}, {"rows": [4]})
