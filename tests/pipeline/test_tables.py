"""Tables in and out, validation, torch's own schedules, stage costs from networks."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netfit.errors import ConfigError, MissingExtraError
from netfit.pipeline import Op, Peak, Schedule, StageCosts, families, gpt, make, simulate
from netfit.pipeline import _torch as private
from netfit.pipeline._cuts import split
from netfit.pipeline._torch import TORCH_SCHEDULES
from netfit.targets import CostTable
from netfit.workload import trace


@pytest.mark.parametrize("name", TORCH_SCHEDULES)
def test_torch_schedules_round_trip(name, tmp_path):
    theirs = Schedule.from_torch(name, 4, 8)
    text = theirs.to_torch_csv(tmp_path / "table.csv")
    assert Schedule.from_torch_csv(tmp_path / "table.csv") == theirs == Schedule.from_torch_csv(text)
    assert (tmp_path / "table.csv").read_bytes().decode() == text == theirs.validate().to_torch_csv()


@pytest.mark.parametrize("name", TORCH_SCHEDULES)
def test_torch_reads_the_cells_we_write(name):
    from torch.distributed.pipelining.schedules import _Action

    theirs = Schedule.from_torch(name, 4, 8)
    for line, row in zip(theirs.to_torch_csv().splitlines(), theirs.rows, strict=True):
        actions = [_Action.from_str(cell) for cell in line.split(",")]
        assert [str(a) for a in actions] == line.split(",")
        assert sum(len(a.sub_actions or (a,)) for a in actions) == len(row)


@pytest.mark.parametrize(
    "ours, theirs",
    [("gpipe", "GPipe"), ("1f1b", "1F1B"), ("interleaved", "Interleaved1F1B"), ("zb-v", "ZBVZeroBubble"),
     ("dualpipev", "DualPipeV")],
)  # fmt: skip
def test_our_tables_are_torchs(ours, theirs):
    assert make(ours, 4, 8).rows == Schedule.from_torch(theirs, 4, 8).rows


@pytest.mark.parametrize("name", [n for n in families() if n not in ("chimera", "dualpipe")])
def test_our_tables_round_trip(name):
    made = make(name, 4, 8)
    again = Schedule.from_torch_csv(made.to_torch_csv(), made.family)
    assert again == made


@pytest.mark.parametrize("name", ["chimera", "dualpipe"])
def test_two_replicas_cannot_be_exported(name):
    with pytest.raises(ConfigError, match="keeps 2 replicas"):
        make(name, 4, 8).to_torch_csv()


def test_another_torch_gets_a_message(monkeypatch):
    monkeypatch.delattr("torch.distributed.pipelining._schedule_visualizer.get_schedule_ops")
    with pytest.raises(MissingExtraError, match=r"has no .*get_schedule_ops, .* pip install 'torch==2.13"):
        Schedule.from_torch("GPipe", 2, 2)
    monkeypatch.delattr("torch.distributed.pipelining.schedules._PipelineScheduleRuntime")
    with pytest.raises(MissingExtraError, match="_PipelineScheduleRuntime"):
        private.torch_runtime([], 1, None, "x.csv")


@pytest.mark.parametrize(
    "text, said",
    [
        ("0F0,0Q0\n", "line 1, cell 2: unknown action '0Q0'"),
        ("0F0,0B0\n1F0,1SEND_F0\n", "line 2, cell 2: unknown action '1SEND_F0'"),
        ("0F0,0B\n", "unknown action '0B'"),
        ("0F0\n", "microbatch 0 on stage 0 runs Fx1"),
        ("0F0,0B0,0B0\n", "X0@0 runs twice"),
        ("0F0,0I0,0B0\n", "B0@0 runs twice"),
        ("0F0,0I0\n", "runs Fx1 Bx1"),
        ("0B0,0F0\n", "device 0 runs X0@0 before F0@0"),
        ("0F0,0W0,0I0\n", "device 0 runs W0@0 before B0@0"),
        ("0F0,0B0\n0F1,0B1\n", "stage 0 is on device 0"),
        ("1F0,1B0\n", "no row of the table has stage 0"),
        ("0F0,0B0\n2F0,2B0\n", "no row of the table has stage 1"),
        (",,\n", "no operation"),
        ("0F0,0B0,\n1F1,1B1\n", "X0@0 reads the result of stage 1, which never runs"),
        ("(0F0;0W0)OVERLAP_F_B,0I0\n", "runs W0@0 before B0@0"),
        ("0F0,1F0,1B0,1B0,0B0\n", "runs twice"),
        ("0F999999999999,0B0\n", "unknown action"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(text, said):
    with pytest.raises(ConfigError) as e:
        Schedule.from_torch_csv(text)
    assert said in str(e.value) and "\n" not in str(e.value)


@given(
    st.lists(
        st.lists(
            st.from_regex(r"[0-3][FIWB][0-3]|\(0F[01];1B[01]\)OVERLAP_F_B|[0-9A-Z();]{0,6}", fullmatch=True), max_size=8
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_text_is_a_schedule_or_refused(cells):
    text = "".join(",".join(row) + ",\n" for row in cells)
    try:
        made = Schedule.from_torch_csv(text)
    except ConfigError as e:
        assert "\n" not in str(e)
    else:
        assert simulate(made, StageCosts.uniform(made.stages)).makespan > 0


def test_a_huge_number_claims_no_memory():
    with pytest.raises(ConfigError, match="2 operations cannot be a table of 1 stages and 999999999 microbatches"):
        Schedule.from_torch_csv("0F999999998,0B999999998\n")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the schedule table .*gone\.csv"):
        Schedule.from_torch_csv(tmp_path / "gone.csv")


def test_collectives_and_idle_slots_are_dropped():
    assert Schedule.from_torch_csv("0F0,,0B0,0REDUCE_GRAD\n").rows == ((Op("F", 0, 0), Op("X", 0, 0)),)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("1f1b", 0, 4), "devices is 0"),
        (("1f1b", 4, -1), "microbatches is -1"),
        (("1f1b", 4, 2.5), "microbatches is 2.5"),
        (("1f2b", 4, 4), "did you mean '1f1b'?"),
        (("interleaved", 4, 6), "microbatches is 6, interleaved 1F1B needs a multiple of the 4 devices"),
        (("chimera", 3, 4), "devices is 3, Chimera needs an even number"),
        (("chimera", 4, 3), "microbatches is 3"),
        (("dualpipev", 4, 7), "microbatches is 7, DualPipeV on 4 devices needs at least its 8 stages"),
        (("dualpipe", 5, 20), "even numbers"),
        (("hanayo-0", 4, 4), "waves is 0"),
        (("gpipe", 10**6, 10**6), "more than"),
    ],
)
def test_sizes_that_cannot_be(arguments, said):
    with pytest.raises(ConfigError) as e:
        make(*arguments)
    assert said in str(e.value)


def test_a_placement_must_be_a_permutation():
    with pytest.raises(ConfigError, match="placement is"):
        make("chimera", 4, 4, placement=[0, 0, 1, 2])
    own = make("chimera", 4, 4, placement=[3, 2, 1, 0])
    assert own.rows and own.placement == make("chimera", 4, 4).placement


def test_torchs_refusal_is_passed_on():
    with pytest.raises(ConfigError, match="torch refuses DualPipeV"):
        Schedule.from_torch("DualPipeV", 4, 2)
    with pytest.raises(ConfigError, match="did you mean 'GPipe'"):
        Schedule.from_torch("Gpipe", 4, 2)


def test_the_cut_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        seconds = rng.uniform(0, 1, 9)
        where = split(seconds, [1] * 10, 3)
        slowest = max(seconds[a:b].sum() for a, b in itertools.pairwise(where))
        every = [
            max(seconds[:a].sum(), seconds[a:b].sum(), seconds[b:].sum()) for a in range(1, 8) for b in range(a + 1, 9)
        ]
        assert slowest == pytest.approx(min(every))


def test_cuts_avoid_the_inside_of_a_block():
    assert split(np.ones(6), [0, 1, 2, 2, 1, 1, 0], 2) in ([0, 4, 6],)


def test_costs_of_a_gpt_balance_its_stages():
    costs = StageCosts.from_target(gpt("gpt-7b"), Peak("h100"), stages=8)
    assert len(costs) == 8 and np.ptp(costs.t_f) < 0.15 * costs.t_f.max()
    np.testing.assert_allclose(costs.t_x / costs.t_f, 2, rtol=0.05)
    assert set(costs.boundary_bytes[:-1].tolist()) == {2048 * 4096 * 2.0}
    assert costs.weight_bytes.sum() == pytest.approx(2 * 6.7e9, rel=0.01)
    assert costs.optimizer_bytes.sum() == pytest.approx(12 * 6.7e9, rel=0.01)
    assert "1:2 rule" in costs.note
    assert simulate(make("1f1b", 8, 16), costs).makespan > 0


def test_a_measured_table_is_matched_by_name():
    net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU())
    workload = trace(net.eval(), torch.randn(2, 8))
    names = [op.name for op in workload if op.kind == "linear"]
    table = CostTable(tuple(names), ("linear",) * 2, np.array([2.0, 1.0]), source="by hand")
    costs = StageCosts.from_target(workload, table, stages=2)
    assert costs.t_f.tolist() == [2.0, 1.0] == costs.t_w.tolist()
    assert costs.boundary_bytes[0] == 2 * 8 * 4
    by_hand = StageCosts.from_target(workload, table, cuts=[1])
    assert by_hand.t_f.tolist() == [2.0, 1.0]
    with pytest.raises(ConfigError, match="names an operator"):
        StageCosts.from_target(workload, CostTable(("other",), ("linear",), np.array([1.0])), stages=2)


@pytest.mark.parametrize(
    "more, said",
    [({"stages": 9}, "stages is 9"), ({"cuts": [3, 1]}, "must grow"), ({"stages": None}, "stages is None")],
)
def test_cuts_that_cannot_be(more, said):
    workload = gpt("gpt-1b")[:4]
    from netfit.workload import Workload

    small = Workload(workload, [], [])
    with pytest.raises(ConfigError, match=said):
        StageCosts.from_target(small, Peak("a100"), **more)


def test_unknown_networks_and_devices():
    for call in (lambda: gpt("gpt-8b"), lambda: Peak("h101"), lambda: gpt("gpt-7b", sequence=0)):
        with pytest.raises(ConfigError):
            call()


def test_no_stage_is_of_views_alone():
    seconds = np.array([0, 1, 0, 0, 2, 0, 1, 0, 0], dtype=float)
    where = split(seconds, [1] * 10, 3)
    assert [seconds[a:b].sum() for a, b in itertools.pairwise(where)] == [1, 2, 1]
    with pytest.raises(ConfigError, match="stages is 4, allowed 1 to the 3 operators"):
        split(seconds, [1] * 10, 4)
