"""The closed forms are exact: against the register-level simulator, the reference's own counts, and SCALE-Sim's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.targets.systolic import SystolicConfig, gemm_cost, simulate

MOVES = (
    "act_loads", "weight_loads", "result_stores", "accum_writes", "pe_steps", "act_hops", "weight_hops", "sum_hops",
)  # fmt: skip

configs = st.builds(
    SystolicConfig,
    rows=st.integers(1, 6),
    cols=st.integers(1, 6),
    accum_rows=st.integers(2, 16),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    weight_load=st.sampled_from(["overlapped", "serial"]),
)
sizes = st.integers(1, 14)


@settings(max_examples=300)
@given(configs, sizes, sizes, sizes, st.integers(0, 2**32 - 1))
def test_closed_form_is_the_register_level_machine(config, m, n, k, seed):
    rng = np.random.default_rng(seed)
    a, w = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
    done, cost = simulate(a, w, config), gemm_cost(m, n, k, config)
    assert (done.out == a @ w).all()
    assert done.cycles == cost.cycles
    assert {name: done.moves.get(name, 0) for name in MOVES} == {name: int(getattr(cost, name)) for name in MOVES}


# Cycles, activation loads, weight loads, intra- and inter-PE moves of the compiled reference.
CAMUY = [
    ((13, 7, 128, 25, 10, 69), (273, 1725, 690, 68250, 42250)),
    ((6, 14, 256, 30, 65, 28), (685, 9240, 1820, 166320, 106920)),
    ((4, 5, 128, 215, 9, 31), (4527, 19995, 1116, 270900, 162540)),
    ((15, 4, 16, 24, 72, 18), (622, 2160, 3888, 108000, 63000)),
]


@pytest.mark.parametrize(("case", "expected"), CAMUY)
def test_camuy_check_values(case, expected):
    cols, rows, accum_rows, m, n, k = case
    cost = gemm_cost(m, n, k, SystolicConfig(rows, cols, accum_rows=accum_rows), compat="camuy")
    found = cost.cycles, cost.act_loads, cost.weight_loads, cost.intra_pe, cost.inter_pe
    assert tuple(map(int, found)) == expected


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(0, 40))
def test_camuy_moves_are_the_sum_over_elements(rows, cols, steps, done):
    from netfit.targets.systolic._forms import _triangle

    x, y = np.meshgrid(np.arange(cols), np.arange(rows))
    element = np.minimum(steps, np.maximum(0, done - x - y))
    assert _triangle(done, rows, cols) - _triangle(done - steps, rows, cols) == element.sum()


# Rows, columns, dataflow, m, n, k and the "Total Cycles" of scalesim 3.0.0; the benchmark runs it on ResNet-18.
SCALESIM = [
    ("ws", (1, 64, 40), 379, (80, 2560, 128)),
    ("ws", (49, 40, 70), 857, (6860, 2800, 5880)),
    ("ws", (12544, 64, 147), 126379, (3687936, 9408, 4014080)),
    ("os", (1, 64, 40), 203, (80, 2560, None)),
    ("os", (100, 40, 70), 1055, (14000, 11200, None)),
    ("os", (12544, 64, 147), 163855, (3687936, 3687936, None)),
    ("is", (1, 64, 40), 315, (40, 2560, 128)),
    ("is", (100, 40, 70), 1607, (7000, 11200, 12000)),
]


@pytest.mark.parametrize(("dataflow", "gemm", "cycles", "accesses"), SCALESIM)
def test_scalesim_counts(dataflow, gemm, cycles, accesses):
    cost = gemm_cost(*gemm, SystolicConfig(32, 32, dataflow=dataflow), compat="scalesim")
    assert cost.cycles == cycles
    for found, expected in zip((cost.act_loads, cost.weight_loads, cost.result_stores), accesses, strict=True):
        assert expected is None or found == expected  # its output-stationary stores are an artefact


def test_sizes_broadcast():
    config = SystolicConfig(4, 4)
    cost = gemm_cost([[1], [9]], [3, 4, 5], 7, config)
    assert cost.cycles.shape == (2, 3)
    assert cost.cycles[1, 2] == gemm_cost(9, 5, 7, config).cycles


@pytest.mark.parametrize("compat", [None, "scalesim"])
@given(config=configs, m=sizes, n=sizes, k=sizes)
def test_nothing_is_faster_than_its_multiplications(compat, config, m, n, k):
    cost = gemm_cost(m, n, k, config, compat)
    assert cost.pe_steps >= cost.macs == m * n * k
    if compat is None:
        assert 0 < cost.utilization <= 1
        assert cost.cycles >= cost.stream_cycles + cost.load_cycles


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: gemm_cost(0, 1, 1, c), r"m = 0 of a matrix product: allowed are whole numbers from 1"),
        (lambda c: gemm_cost(1, 1, [3, -2], c), r"k = -2 of a matrix product"),
        (lambda c: gemm_cost(1, float("nan"), 1, c), r"n = nan of a matrix product"),
        (lambda c: gemm_cost(1 << 40, 1 << 40, 1 << 40, c), "too large; counters must stay below"),
        (lambda c: gemm_cost(1, 1, 1, c, compat="camui"), r"compat = 'camui'.*'camuy', 'scalesim'"),
        (lambda c: simulate(np.ones((2, 3), int), np.ones((2, 3), int), c), r"shapes \(2, 3\) and \(2, 3\)"),
        (lambda c: simulate(np.ones((2, 3)), np.ones((3, 2)), c), "dtypes float64"),
        (lambda c: simulate(np.ones((1 << 14, 999), int), np.ones((999, 99), int), c), "too large"),
    ],
)
def test_bad_products_are_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as e:
        call(SystolicConfig(4, 4))
    assert "\n" not in str(e.value)
