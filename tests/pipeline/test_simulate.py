"""Links, memory, critical path, several steps, and speed."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ConfigError
from netfit.pipeline import Network, Op, Schedule, StageCosts, make, simulate

NAMES = ["gpipe", "1f1b", "interleaved", "chimera", "hanayo-1", "zb-h1", "zb-v", "v-min", "dualpipe", "dualpipev"]


def free_rerun(schedule, costs, network):
    """A plain fixed-point evaluation with a queue per directed link: slow, obvious, no heap."""
    costs = costs.for_stages(schedule.stages)
    time = {"F": costs.t_f, "B": costs.t_b, "W": costs.t_w, "X": costs.t_x}
    rows = [list(row) for row in schedule.rows]
    end, arrived, link, free = {}, {}, {}, [0.0] * schedule.devices
    while any(rows):
        for d, row in enumerate(rows):
            if not row:
                continue
            group = row[: 2 if row[0].paired else 1]
            inputs = []
            for op in group:
                back = op.kind in "BX"
                at_border = (op.stage == 0 and op.kind == "F") or (op.stage == schedule.stages - 1 and back)
                if op.kind != "W" and not at_border:
                    inputs.append(arrived.get(("F" if op.kind == "F" else "X", op.stage, op.microbatch)))
            if any(i is None for i in inputs):
                continue
            stop = max([free[d], *inputs]) + sum(time[op.kind][op.stage] for op in group)
            free[d] = stop
            del row[: len(group)]
            for op in group:
                end[op] = stop
                to = op.stage + (1 if op.kind == "F" else -1)
                if op.kind == "W" or not 0 <= to < schedule.stages:
                    continue
                there = schedule.placement[op.replica][to]
                when = stop
                if there != d:
                    begin = max(stop, link.get((d, there), 0.0))
                    link[d, there] = begin + costs.boundary_bytes[min(op.stage, to)] / network.bytes_per_s[d, there]
                    when = link[d, there] + network.latency_s[d, there]
                arrived["F" if op.kind == "F" else "X", to, op.microbatch] = when
    return max(end.values())


@settings(max_examples=40)
@given(st.sampled_from(NAMES), st.sampled_from([(2, 4), (4, 8), (4, 16)]), st.integers(0, 10**6))
def test_equal_to_a_naive_simulation(name, size, seed):
    p, m = size
    schedule = make(name, p, m)
    rng = np.random.default_rng(seed)
    n = schedule.stages
    costs = StageCosts(*rng.uniform(0.5, 2.0, (3, n)), boundary_bytes=rng.uniform(0, 2, n))
    network = Network(rng.uniform(0, 0.5, (p, p)), rng.uniform(0.5, 4, (p, p)))
    assert simulate(schedule, costs, network).makespan == pytest.approx(free_rerun(schedule, costs, network), rel=1e-12)


@settings(max_examples=30)
@given(
    st.sampled_from(NAMES), st.floats(0, 1), st.sampled_from(["overlap", "blocking"]), st.sampled_from(["full", "half"])
)
def test_bounds_and_the_critical_path(name, message, send, duplex):
    schedule, costs = make(name, 4, 8), StageCosts.uniform(4, boundary_bytes=1.0)
    network = replace(Network.uniform(4, message / 3, 1.5 / max(message, 1e-9)), send=send, duplex=duplex)
    run = simulate(schedule, costs, network)
    assert run.makespan >= simulate(schedule, costs).makespan - 1e-9 >= run.busy.max() - 1e-9
    path = run.critical_path()
    assert path[0].start == 0 and path[-1].end == run.end.max()
    assert all(a.end == pytest.approx(b.start) for a, b in itertools.pairwise(path))
    assert sum(part.end - part.start for part in path) == pytest.approx(run.makespan)
    assert (run.exposed_s <= run.makespan - run.busy + 1e-9).all()


def test_a_single_message_is_accounted_for_exactly():
    costs = StageCosts.uniform(2, 1.0, 1.0, 1.0, boundary_bytes=6.0)
    run = simulate(make("gpipe", 2, 1), costs, Network.uniform(2, latency_s=0.5, bytes_per_s=4.0))
    assert run.makespan == 1 + (1.5 + 0.5) + 3 + (1.5 + 0.5) + 2
    assert run.exposed_s.tolist() == [2.0, 2.0]
    assert [part.what for part in run.critical_path()] == [
        "compute",
        "message",
        "compute",
        "compute",
        "message",
        "compute",
    ]


def test_messages_of_one_wire_wait_for_each_other():
    schedule, costs = make("interleaved", 4, 8), StageCosts.uniform(4, boundary_bytes=1.0)
    full = Network.uniform(4, bytes_per_s=1.0)
    bus = frozenset(itertools.permutations(range(4), 2))
    networks = full, replace(full, duplex="half"), replace(full, shared=(bus,))
    own, pair, one = (simulate(schedule, costs, network).makespan for network in networks)
    assert own < pair < one
    assert one >= 2 * 7 * 8  # the bus carries every message of 8 stages after the other


@pytest.mark.parametrize("send, expected", [("overlap", (121.2, 137.4)), ("blocking", (139.8, 139.5))])
def test_gpipe_and_1f1b_are_equal_only_on_a_free_network(send, expected):
    network = replace(Network.uniform(8, 0.3), send=send)
    found = [simulate(make(n, 8, 32), StageCosts.uniform(8), network).makespan for n in ("gpipe", "1f1b")]
    assert found == pytest.approx(expected)


def test_in_order_receives_never_help_and_hurt_where_messages_overtake():
    slower = 0
    for name in NAMES:
        schedule, costs = make(name, 4, 8), StageCosts.uniform(4, boundary_bytes=1.0)
        network = Network.uniform(4, 0.4, 2.0)
        late = simulate(schedule, costs, replace(network, recv="in-order")).makespan
        soon = simulate(schedule, costs, network).makespan
        assert late >= soon - 1e-9
        slower += late > soon + 1e-9
    assert slower


@settings(max_examples=20)
@given(st.sampled_from(NAMES), st.floats(1.01, 8))
def test_more_bandwidth_does_not_slow_a_plain_pipeline_down(name, factor):
    # True of every fixed order with links of their own: a message can only become ready earlier.
    schedule, costs = make(name, 4, 8), StageCosts.uniform(4, boundary_bytes=1.0)
    network = Network.uniform(4, 0.1, 2.0)
    faster = simulate(schedule, costs, network.scaled(factor)).makespan
    assert faster <= simulate(schedule, costs, network).makespan + 1e-9


def test_memory_in_bytes():
    costs = StageCosts(
        [1.0, 1.0], 1.0, 1.0, activation_bytes=[10.0, 20.0], weight_bytes=[100.0, 200.0], grad_bytes=1.0,
        optimizer_bytes=[3.0, 4.0], free_at_b=0.25,
    )  # fmt: skip
    run = simulate(make("gpipe", 2, 3), costs)
    assert run.static_bytes.tolist() == [104.0, 205.0]
    assert run.peak_bytes.tolist() == [134.0, 265.0]
    split = simulate(make("zb-h1", 2, 3), costs)
    _, stored = split.memory[1]
    assert stored.max() == 20 + 15 + 0 and stored[-1] == 0  # F, then 3/4 of it until W; F again
    both = simulate(make("chimera", 2, 2), costs)
    assert both.static_bytes.tolist() == [309.0, 309.0]  # two replicas


def test_steps_overlap_where_devices_are_free():
    run = simulate(make("1f1b", 4, 8), StageCosts.uniform(4), steps=5)
    assert run.makespan <= 5 * 33 and run.step_s <= 33
    one = simulate(make("1f1b", 4, 8), StageCosts.uniform(4))
    assert one.step_s == one.makespan == 33


def test_pairs_take_what_the_overlap_says():
    schedule = make("dualpipev", 2, 8)
    costs = StageCosts.uniform(2)
    together = simulate(schedule, replace_overlap(costs, 0.5))
    apart = simulate(schedule, costs)
    assert together.makespan < apart.makespan
    assert apart.busy.tolist() == [24.0, 24.0]


def replace_overlap(costs, overlap):
    return StageCosts(costs.t_f, costs.t_b, costs.t_w, activation_bytes=costs.activation_bytes, overlap=overlap)


def test_a_deadlock_names_operations_and_devices():
    rows = (
        (Op("F", 0, 0), Op("X", 0, 0), Op("F", 0, 1), Op("X", 0, 1)),
        (Op("F", 1, 1), Op("X", 1, 1), Op("F", 1, 0), Op("X", 1, 0)),
    )
    schedule = Schedule("custom", rows, ((0, 1),), 2)
    for run in (schedule.validate, lambda: simulate(schedule, StageCosts.uniform(2))):
        with pytest.raises(ConfigError) as e:
            run()
        assert str(e.value) == (
            "deadlock: device 0 at X0@0 waits for X0@1 of device 1; device 1 at F1@1 waits for F1@0 of device 0"
        )


def test_the_chrome_trace_has_all_operations_links_and_memory(tmp_path):
    run = simulate(make("1f1b", 2, 2), StageCosts.uniform(2, boundary_bytes=1.0), Network.uniform(2, 0.1, 10.0))
    events = json.loads(run.to_chrome_trace(tmp_path / "t.json").read_text())["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X", "C"}
    slices = [e for e in events if e["ph"] == "X"]
    assert sum(e["pid"] == 0 for e in slices) == 8 and sum(e["pid"] == 1 for e in slices) == 4
    assert all(e["dur"] > 0 and e["ts"] >= 0 and {"name", "tid"} <= set(e) for e in slices)
    on_links = {e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name" and e["pid"] == 1}
    assert on_links == {"0 to 1", "1 to 0"}


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: simulate(make("1f1b", 2, 2), StageCosts.uniform(2), Network.uniform(3)), "3 devices"),
        (lambda: simulate(make("1f1b", 2, 2), StageCosts.uniform(3)), "3 stages cannot be cut evenly into 2"),
        (lambda: simulate(make("1f1b", 2, 2), StageCosts.uniform(2), steps=0), "steps is 0"),
        (lambda: StageCosts([1.0, float("nan")], 1, 1), "t_f is nan on stage 1"),
        (lambda: StageCosts([1.0, 0.0], 1, 1), "t_f is 0.0 on stage 1"),
        (lambda: StageCosts([1.0, 1.0], -1, 1), "t_b is -1.0"),
        (lambda: StageCosts([1.0, 1.0], [1, 2, 3], 1), "t_b has shape (3,)"),
        (lambda: StageCosts(1.0, 1, 1, overlap=1.5), "overlap is 1.5"),
        (lambda: Network.uniform(2, -1.0), "latency_s is -1.0"),
        (lambda: Network.uniform(2, 0.0, 0.0), "bytes_per_s is 0.0"),
        (lambda: Network.uniform(2, float("nan")), "latency_s is nan"),
        (lambda: replace(Network.uniform(2), send="later"), "send is 'later'"),
        (lambda: Network.preset("h100-ip", 4), "did you mean 'h100-ib'"),
        (lambda: Network.fit([1e3, 1e6], [1e-6, 1e-2]), "latency is -"),
        (lambda: Network.fit([1e3, 1e3], [1e-6, 1e-2]), "two or more different sizes"),
        (lambda: Network.fit([1e3, 1e6], [1e-2, 1e-6]), "must be"),
        (lambda: Network.fit([1e3, 1e6], [0.0, 1e-6]), "times positive"),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(ConfigError) as e:
        call()
    assert said in str(e.value) and "\n" not in str(e.value)


def test_a_link_is_found_again():
    sizes = np.array([1e3, 1e4, 1e5, 1e6, 1e7])
    link = Network.fit(sizes, 19e-6 + sizes / 36e9)
    assert link.latency_s == pytest.approx(19e-6) and link.bandwidth_bytes_per_s == pytest.approx(36e9)


def test_nodes_have_fast_links_inside():
    network = Network.preset("h100-ib", 4, inside="h100-nvlink", per_node=2)
    assert network.bytes_per_s[0, 1] == 357e9 and network.bytes_per_s[1, 2] == 36e9
