"""What is measured is true, and what is planned holds."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netfit import data, models
from netfit.errors import ArtifactError, ConfigError, TargetError
from netfit.memory import (
    BudgetError,
    MemoryPlan,
    MemoryReport,
    TrainingStep,
    grad_fidelity,
    inventory,
    max_batch_size,
    measure,
    plan,
    tune_allocator,
)
from netfit.memory._plan import _Planner
from netfit.memory._process import in_child
from netfit.memory._timeline import record
from netfit.surgery import apply

from .nets import NETS, step_of


def digits_step(batch: int = 32) -> TrainingStep:
    """Real digits on a deep and narrow residual network."""
    x, y = data.load("digits").tensors(range(batch))
    x = F.interpolate(x, 16).expand(-1, 3, -1, -1).contiguous()
    torch.manual_seed(0)
    net = models.build("resnet20", in_shape=(3, 16, 16)).train()
    return TrainingStep(net, x, y, F.cross_entropy, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9))


@pytest.fixture(scope="module")
def step() -> TrainingStep:
    made = digits_step()
    for _ in range(5):
        made()
    return made


@pytest.mark.parametrize("name", NETS)
def test_the_inventory_is_what_freeing_the_graph_gives_back(name: str) -> None:
    step = step_of(name)
    own: list[int] = []

    def work() -> None:
        loss = step.loss()
        own.append(loss.untyped_storage().nbytes())  # mse_loss leaves its sum in memory as large as its input
        with torch.profiler.record_function("netfit a"):
            pass
        del loss
        with torch.profiler.record_function("netfit b"):
            pass

    work()
    timeline = record(work)
    before, after = timeline.mark("netfit a"), timeline.mark("netfit b")
    assert before is not None and after is not None
    assert inventory(step).total == pytest.approx(before - after - own[-1], rel=0.01)


def test_the_inventory_names_places_roles_and_sharing() -> None:
    found = inventory(step_of("residual"))
    relu = next(r for r in found.owners() if r.kind == "relu")
    assert (relu.role, relu.lossless, relu.shape) == ("result", "mask", (8, 16, 16, 16))
    assert found.shared_with(relu) == ["a", "side"]
    assert sum(found.by_kind().values()) == found.total
    assert {r.role for r in found.rows if r.name == "stem"} == {"batch", "parameter"}


def test_a_measurement_leaves_nothing_behind_and_sees_the_optimizer() -> None:
    step = digits_step(8)
    before = {k: v.clone() for k, v in step.model.state_dict().items()}
    found = measure(step)
    assert all(torch.equal(before[k], v) for k, v in step.model.state_dict().items())
    trained = sum(p.nbytes for p in step.model.parameters())
    assert found.held["parameters"] == found.held["optimizer"] == trained
    assert found.saved is not None and 0 < found.saved < found.peak
    assert found.peak == max(b for _, b in found.timeline) + sum(found.held.values())
    assert MemoryReport.from_json(found.to_json()) == found
    here = measure(step, isolate=False)
    assert here.peak == pytest.approx(found.peak, rel=0.02) and here.process_peak is None
    assert torch.equal(before["bn1.running_mean"], step.model.state_dict()["bn1.running_mean"])


INDEPENDENT = """
import sys, pathlib, torch, torch.nn.functional as F
torch.set_num_threads(1)
net = torch.nn.Sequential(*[torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(8)])
x = torch.randn(64, 16, 64, 64)
def step():
    net.zero_grad(); net(x).square().mean().backward()
def status(field):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(field)) * 1024
step(); net.zero_grad()
pathlib.Path("/proc/self/clear_refs").write_text("5")
rest = status("VmRSS"); step()
print(status("VmHWM") - rest)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the resident set is read from /proc")
def test_the_process_peak_is_that_of_an_independent_process() -> None:
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", INDEPENDENT], capture_output=True, text=True, env=environment)
    if "clear_refs" in done.stderr:
        pytest.skip("this container does not let a process restart its peak")
    net = nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1) for _ in range(8)])
    found = measure(TrainingStep(net, torch.randn(64, 16, 64, 64)), repeats=0)
    assert found.process_peak is not None
    assert found.process_peak - sum(found.held.values()) == pytest.approx(int(done.stdout), rel=0.03)
    assert found.process_peak == pytest.approx(found.peak, rel=0.05)


def test_failures_in_the_child_are_one_line() -> None:
    def broken() -> None:
        raise RuntimeError("two\nlines")

    with pytest.raises(TargetError, match="RuntimeError: two lines"):
        measure(broken)
    with pytest.raises(TargetError, match="signal 9"):
        measure(lambda: os.kill(os.getpid(), 9))
    with pytest.raises(ConfigError, match="plain function"):
        measure(broken, policy="q4")
    assert measure(lambda: torch.zeros(1 << 20), repeats=0).peak >= 4 << 20


@pytest.fixture(scope="module")
def tight(step: TrainingStep) -> MemoryPlan:
    """A budget that no exact way meets."""
    return plan(step, 0.6)


def test_a_plan_keeps_its_promise(step: TrainingStep, tight: MemoryPlan) -> None:
    assert tight.budget is not None
    assert 0.85 * tight.budget <= tight.after.peak <= tight.budget
    assert tight.predicted_peak == pytest.approx(tight.after.peak, rel=0.05)
    assert tight.predicted_error == pytest.approx(tight.error, rel=0.2)
    assert measure(step, policy=tight.policy, repeats=0).peak == pytest.approx(tight.after.peak, rel=0.02)


def test_time_first_keeps_what_was_asked_too(step: TrainingStep) -> None:
    quick = plan(step, 0.6, objective="time")
    assert quick.budget is not None and quick.after.peak <= quick.budget and quick.error <= 0.1


def test_exact_ways_come_first_and_a_large_budget_changes_nothing(step: TrainingStep) -> None:
    assert plan(step, "1GB").words == {}
    exact = plan(step, 0.95)
    assert (exact.words, exact.error) == ({"*": "lossless"}, 0.0)
    assert grad_fidelity(step, exact.policy).total == 0.0


@pytest.mark.slow
def test_at_equal_bytes_a_plan_is_nearer_than_pooling_and_uniform_bits(step: TrainingStep) -> None:
    for word, share in (("pool2", 1 / 20), ("q4", 1.05)):
        same = plan(step, measure(step, policy=word, repeats=0).peak, max_grad_error=1.0)
        assert same.error <= share * grad_fidelity(step, word).total


def test_the_floor_is_itemised_and_respects_the_error(step: TrainingStep) -> None:
    with pytest.raises(BudgetError, match=r"below the floor .*parameters .*compressed activations .*workspaces") as e:
        plan(step, 0.1)
    floor = re.search(r"nearest feasible budget: ([\d.]+) MB", str(e.value))
    least = plan(step)
    assert floor is not None and least.after.peak <= 1.02e6 * float(floor[1])
    assert least.error <= 0.1 and least.after.peak < 0.55 * least.base.peak


def test_what_errors_miss_when_they_are_added_up_is_corrected(step: TrainingStep) -> None:
    planner = _Planner(step, measure(step, repeats=0), 0.1, False, 0)
    planner._problem = replace(planner._problem, error=planner._problem.error / 4)  # twice too small
    assert planner.fit(None).error <= 0.1


@pytest.mark.parametrize("bad", ["", "much", "-1GB", "0", "2TB"])
def test_budgets_that_are_none(bad: str) -> None:
    with pytest.raises(ConfigError, match="budget"):
        plan(digits_step(4), bad)


def test_a_plan_is_a_file_a_policy_and_a_table(step: TrainingStep, tight: MemoryPlan) -> None:
    again = MemoryPlan.from_json(tight.to_json())
    assert (again.words, again.after, again.error) == (tight.words, tight.after, tight.error)
    assert "peak" in tight.table() and "gradient error" in tight.table()
    model = apply(step.model, tight.policy, *step.inputs)
    assert {k.split("#")[0] for k in model.state_dict() if k.endswith(".step")} == {
        f"netfit_hooks.at.{name.replace('.', '/')}" for name in tight.words
    }
    for broken in ({}, {**tight.to_json(), "words": {"a": "q3"}}, {**tight.to_json(), "base": {}}, []):
        with pytest.raises(ArtifactError, match="not a memory"):
            MemoryPlan.from_json(broken)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokens", "lstm", "unet"])
def test_other_networks_are_planned_too(name: str) -> None:
    made = plan(step_of(name).resized(32))
    # oneDNN's LSTM keeps one opaque workspace, which is most of what it saves.
    assert made.after.peak < made.base.peak or name == "lstm"


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    step = digits_step(8)
    memory = 3 * measure(step, repeats=0).peak
    largest = max_batch_size(step, memory)
    assert measure(step.resized(largest), repeats=0).peak <= memory
    assert measure(step.resized(round(1.05 * largest) + 1), repeats=0).peak > memory
    assert max_batch_size(step, memory, policy="q4") > 1.3 * largest
    with pytest.raises(BudgetError, match="below the floor"):
        max_batch_size(step, 10_000)
    with pytest.raises(ConfigError, match="8GB"):
        max_batch_size(step, 0.5)


def test_fidelity_names_the_worst_layers(step: TrainingStep) -> None:
    found = grad_fidelity(step, {"layer2.0.conv1": "q1"})
    assert found.worst(1)[0][0] == "layer2.0.conv1.weight"
    assert found.error["conv1.weight"] == 0.0 and found.cosine["conv1.weight"] == pytest.approx(1.0)
    assert found.cosine["layer2.0.conv1.weight"] < 0.999


def test_the_allocator_is_tuned_on_glibc_and_bad_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="glibc takes"):
        tune_allocator(100)
    assert in_child(lambda: {"done": tune_allocator(1 << 20)})["done"] == (platform.libc_ver()[0] == "glibc")


def test_a_step_needs_a_batch_and_parameters() -> None:
    with pytest.raises(ConfigError, match="batch"):
        TrainingStep(nn.Linear(2, 2), torch.empty(0, 2))
    with pytest.raises(ConfigError, match="no parameter"):
        TrainingStep(nn.ReLU(), torch.ones(2, 2))
    assert step_of("residual").resized(11).batch_size == 11
