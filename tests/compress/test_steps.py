"""Channel counts found by timing, on clocks that are formulas."""

import json
from itertools import pairwise

import pytest
import torch
from torch import nn

from netfit.compress import Settings, compress, search_space
from netfit.compress._cost import Cost
from netfit.compress._steps import LEAST_SAVING, useful_steps
from netfit.models import build
from netfit.runs import Run

from .toys import USER_NET, BitOps


class Clock:
    """Times candidates by a formula, and counts how often it is asked."""

    def __init__(self, time, noisy=lambda keep: False):
        self.time, self.noisy, self.asked = time, noisy, []

    def build(self, candidate):
        return candidate

    def cost(self, candidate):
        self.asked.append(candidate)
        ratio = self.time(candidate.keep)
        return Cost(ratio, ratio, ratio, ratio, self.noisy(candidate.keep))


@pytest.fixture(scope="module")
def space():
    return search_space(
        nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.Linear(32, 3)),
        torch.zeros(1, 6),
        target=BitOps(),
    )


def test_a_count_stays_when_no_larger_one_is_as_fast(space):
    times = {64: 1.0, 56: 1.3, 48: 0.995, 40: 0.8, 32: 0.9, 24: 0.79, 16: 0.5, 8: 0.51}
    clock = Clock(lambda keep: times[keep["0"]])
    found = useful_steps(space, clock, clock)
    # 48 and 24 save less than the noise
    assert LEAST_SAVING == 0.01 and found["0"] == (16, 24, 40, 64)


def test_savings_too_small_to_see_one_by_one_add_up(space):
    clock = Clock(lambda keep: 1 - (64 - keep["0"]) / 8 * 0.006)
    assert useful_steps(space, clock, clock)["0"] == (16, 32, 48, 64)


def test_groups_of_one_shape_share_their_measurements(space):
    clock = Clock(lambda keep: sum(keep.values()) / 160)
    found = useful_steps(space, clock, clock)
    assert found["0"] == found["2"] == tuple(range(8, 65, 8)) and found["4"] == tuple(range(4, 33, 4))
    assert all(c.keep["0"] == c.keep["2"] for c in clock.asked) and len(clock.asked) == 1 + 7 + 7
    assert all(p == "int8" for c in clock.asked for p in c.precision.values())


def test_steps_stay_when_none_pays(space):
    clock = Clock(lambda keep: 1.0)
    assert useful_steps(space, clock, clock) == space.steps


def test_what_a_busy_machine_cannot_tell_stays_as_it_was(space):
    clock = Clock(lambda keep: 1.0, noisy=lambda keep: keep["0"] < 64)
    assert useful_steps(space, clock, clock)["0"] == space.steps["0"]
    assert useful_steps(space, clock, clock)["4"] == (32,)


@pytest.mark.parametrize(("name", "most"), [("resnet20", 20), ("resnet18", 30)])
def test_residual_networks_take_few_measurements(name, most):
    space = search_space(build(name, in_shape=(3, 32, 32)), torch.zeros(2, 3, 32, 32), target=BitOps())
    clock = Clock(lambda keep: sum(keep.values()) / 1e4)
    found = useful_steps(space, clock, clock)
    assert len(clock.asked) <= most and found.keys() == space.steps.keys()
    assert all(len(steps) > 1 and steps[-1] == space.steps[g][-1] for g, steps in found.items())


def test_too_many_kinds_of_groups_keep_their_steps():
    widths = [6, *range(32, 272, 16)]
    layers = [m for i, o in pairwise(widths) for m in (nn.Linear(i, o), nn.ReLU())]
    space = search_space(nn.Sequential(*layers, nn.Linear(widths[-1], 2)), torch.zeros(1, 6), target=BitOps())
    clock = Clock(lambda keep: 1.0)
    assert useful_steps(space, clock, clock) == space.steps and not clock.asked


class Timed(BitOps):
    kind = "measured"


def test_a_job_on_a_measured_target_sweeps_once(tmp_path):
    (tmp_path / "mine.py").write_text(USER_NET)
    for _ in range(2):
        with Run.open(tmp_path / "run", "compress", {}, 0) as run:
            settings = Settings(trials=3, sampler="ddpg-joint", epochs=1, finalists=1)
            result = compress(f"{tmp_path / 'mine.py'}:Net", "digits", Timed(), 0.9, run, settings)
    steps = json.loads((tmp_path / "run" / "stages" / "steps.json").read_text())
    assert "8" in json.dumps(steps) and (tmp_path / "run" / "ddpg-joint").is_dir()
    assert {t["origin"] for t in result["trials"]} == {"ddpg-joint"}
