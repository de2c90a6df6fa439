"""What noise costs: training and inference of LeNet-5 with BatchNorm, walks with and without reuse, large networks.

CPU seconds of one thread, candidates in turn: ratios hold on a busy machine. The published simulators that the ratios
could be compared with (aihwkit, aihwkit-lightning, CrossSim) are no part of the peers' environment.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks._analog_nets import LeNet5, one_thread
from benchmarks._common import interleave, median_ratio, record
from netfit.analog import AdditiveGaussian, Injection, sites
from netfit.analog._levels import Bench, Point
from netfit.analog.schedules import Constant, HalfNormal

BATCH, REPEATS = 128, 15
GOALS = {"all sites, pool": 1.3, "layers, pool": 1.1}


def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One training step with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return run


def infer(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """One forward pass in evaluation mode."""
    model.eval()

    def run() -> None:
        with torch.no_grad():
            model(x)

    return run


def noisy(net: nn.Module, x: torch.Tensor, at: str, source: Any) -> nn.Module:
    """A copy with noise."""
    injection = Injection.everywhere(net, AdditiveGaussian(0.3), x[:2], at=at)
    injection.draw_from(source)
    return injection.model


def cost() -> list[dict[str, Any]]:
    """Training and inference with noise over the same without."""
    torch.manual_seed(0)
    x, y, net = torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,)), LeNet5(bn=True)
    rows = []
    for name, make in (("training step", lambda m: step(m, x, y)), ("inference", lambda m: infer(m, x))):
        candidates = {"none": make(LeNet5(bn=True))}
        for where, at in (("all sites", "*"), ("layers", "[cf]*[123]")):
            for source in ("exact", "pool"):
                candidates[f"{where}, {source}"] = make(noisy(net, x, at, source))
        seconds = interleave(candidates, REPEATS, warmup=3, clock=time.process_time)
        for key in list(candidates)[1:]:
            goal = GOALS.get(key) if "step" in name else None
            ratio = median_ratio(seconds[key], seconds["none"])
            rows.append(_row(f"{name}, noise at {key}, over no noise", ratio.median, goal, most=True))
    return [*rows, schedule(net, x, y)]


def schedule(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """One level a sample over one level for all."""
    models = {}
    for name, course in (("constant", Constant(0.3)), ("vant", HalfNormal(0.3))):
        injection = Injection.everywhere(net, AdditiveGaussian(0.3), x[:2])
        injection.draw_from("pool")
        injection.follow(course)
        models[name] = step(injection.model, x, y)
    seconds = interleave(models, REPEATS, warmup=3, clock=time.process_time)
    ratio = median_ratio(seconds["vant"], seconds["constant"]).median
    return _row("training step, one level a sample over constant noise", ratio, 1.05, most=True)


def walks() -> list[dict[str, Any]]:
    """An evaluation walk over all sites with and without reusing what comes before the noise."""
    torch.manual_seed(0)
    data = torch.randn(256, 1, 28, 28), torch.randint(10, (256,))
    bench = Bench.of(LeNet5(bn=True).eval(), AdditiveGaussian(1.0), data)
    points = [Point(site, std, 0) for site in bench.injection.sites for std in (0.1, 0.2, 0.5, 1, 2, 5)]
    found, seconds = {}, {True: [], False: []}
    for _ in range(3):
        for reuse in (True, False):
            bench.reuse, start = reuse, time.process_time()
            found[reuse] = bench.measure(points)
            seconds[reuse].append(time.process_time() - start)
    ratio = statistics.median(seconds[False]) / statistics.median(seconds[True])
    same = float(found[True] == found[False])
    return [_row("evaluation walk, full passes over reuse", ratio, 2.3), _row("... with the same numbers", same, 1.0)]


def large() -> dict[str, Any]:
    """Sites of a network of 200 layers."""
    net = nn.Sequential(*(m for _ in range(100) for m in (nn.Linear(8, 8), nn.ReLU())))
    start = time.process_time()
    assert len(sites(net, torch.zeros(1, 8))) == 201
    return _row("CPU s of sites() on 200 layers", time.process_time() - start, 1.0, most=True)


def _row(check: str, value: float, goal: float | None, most: bool = False) -> dict[str, Any]:
    met = "" if goal is None else str(value <= goal if most else value >= goal)
    return {"check": check, "value": value, "goal": "" if goal is None else goal, "met": met}


def main() -> None:
    """Print and keep one row per figure."""
    one_thread()
    record("analog_speed", [*cost(), *walks(), large()], batch=BATCH, repeats=REPEATS)


if __name__ == "__main__":
    main()
