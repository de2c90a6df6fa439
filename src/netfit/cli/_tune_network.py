"""``netfit tune MODEL``: every distinct operator of a network, and the whole before and after."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netfit.errors import ConfigError, JobError

from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.compile.ops import Operator
    from netfit.compile.tune import Runner, Space

__all__ = ["network_outcome", "tune_network"]

Problem = tuple["Space", "Runner", tuple[int, ...]]


def tune_network(
    spec: str, shape: tuple[int, ...] | None, target: str, problem: Callable[["Operator"], Problem], place: Path,
    tuner: str, trials: int, seed: int, export: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Tune the operators of a network, one after the other; a killed run goes on where it was.

    Raises:
        ConfigError: the network has no operator that can be generated.
    """
    from netfit.compile import operators
    from netfit.compile.ops import Conv2d, Kernel
    from netfit.workload import trace

    from ._network import open_network

    network = open_network(spec, shape)
    workload = trace(network.model, network.inputs())
    found = operators(workload)
    if target.startswith("vta"):
        found = {op: places for op, places in found.items() if isinstance(op, Conv2d)}
    if not found:
        raise ConfigError(f"{spec} has no convolution or linear layer that a kernel is written for")
    rows = []
    for op, places in found.items():
        rows.append({"operator": op.name, "places": places, **_one(op, problem(op), place, tuner, trials, seed)})
        if export is not None:
            Kernel(op, tuple(rows[-1]["config"])).export(export / places[0])
    covered = sum(op.macs * len(places) for op, places in found.items()) / max(1, sum(op.macs for op in workload))
    before, after = (sum(r[key] * len(r["places"]) for r in rows) for key in ("default_s", "seconds"))
    return {
        "kind": "tune-network", "operation": spec, "target": target, "tuner": tuner, "rows": rows,
        "before_s": before, "after_s": after, "covered": covered,
    }  # fmt: skip


def _one(op: "Operator", problem: Problem, place: Path, tuner: str, trials: int, seed: int) -> dict[str, Any]:
    from netfit.compile.tune import Study, make

    space, runner, default = problem
    study = Study(place, make(tuner, space, seed), runner)
    best = study.run(trials)
    # Once more beside each other: the first time may have been a slow moment of the machine.
    again = runner.run([default, best.config])
    usual, tuned = (again[c].seconds for c in (default, best.config))
    if usual is None or tuned is None:
        raise JobError(f"{op.name} did not run a second time: {again[default].status}, {again[best.config].status}")
    config = best.config if tuned <= usual else default
    return {
        "config": list(config), "knobs": dict(zip(space.knobs, config, strict=True)), "default_s": usual,
        "seconds": min(usual, tuned), "attempts": len(study.history), "measured": study.measured,
    }  # fmt: skip


def network_outcome(place: Path, as_json: bool, facts: dict[str, Any]) -> Output:
    """What is printed of a tuned network."""
    write_page(place)
    rows = [
        (r["operator"], str(len(r["places"])), si(r["default_s"], "s"), si(r["seconds"], "s"),
         f"{r['default_s'] / r['seconds']:.2f}")
        for r in facts["rows"]
    ]  # fmt: skip
    text = table(("operator", "places", "untuned", "tuned", "times"), rows)
    text += f"\nall of them: untuned {si(facts['before_s'], 's')}, tuned {si(facts['after_s'], 's')}"
    text += f" ({facts['before_s'] / facts['after_s']:.2f} times); {facts['covered']:.0%} of the multiply-accumulates"
    return answer(as_json, {"run": place, **facts}, f"{text}\nreport: {place / 'report.html'}")
