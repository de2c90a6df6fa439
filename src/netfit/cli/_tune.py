"""``netfit tune`` and ``netfit serve``: the fastest valid kernel of an operator, here, emulated or on a board."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._options import Count, InShape, Json, Seed, shape
from ._output import Output, answer, si, table, write_page
from ._tune_network import network_outcome, tune_network

if TYPE_CHECKING:
    from netfit.compile.ops import Operator
    from netfit.compile.tune import Runner, Space, Study

__all__ = ["serve", "tune"]

TunerName = Literal["forest", "boosted", "genetic", "random", "grid", "optuna"]
Operation = Annotated[
    str,
    Parameter(
        help="A network, tuned operator by operator (name, package.module:factory, file.py:factory, folder), or one "
        "operator: gemm:960x960x960, gemm:12x960x960,int8, conv2d:1x64x56x56,k=64,r=3,padding=1, "
        "depthwise:1x64x56x56,r=3, pfp-dense:1x784x128, pfp-conv2d:..., pfp-maxpool:1x6x28x28."
    ),
]


def tune(
    operation: Operation,
    /,
    *,
    target: Annotated[
        str, Parameter(help="host, vta, vta:4x8, or cortex-a53, cortex-a72, cortex-a76, armv7 (qemu, or --board).")
    ] = "host",
    tuner: TunerName = "forest",
    trials: Annotated[Count, Parameter(help="Configurations that are tried, those of earlier runs included.")] = 60,
    records: Annotated[Path | None, Parameter(help="File of records to add to; records.jsonl of the run.")] = None,
    board: Annotated[str | None, Parameter(help="HOST:PORT where netfit serve runs; with --token-file.")] = None,
    token_file: Annotated[Path | None, Parameter(help="File with the board's token.")] = None,
    export: Annotated[Path | None, Parameter(help="Folder for the best kernels as C with their own tests.")] = None,
    in_shape: InShape = None,
    run: Annotated[Path | None, Parameter(help="Run directory; runs/... by default.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Find a fast valid configuration of an operator, or of each one of a network, in few measurements."""
    from netfit.compile import ops
    from netfit.runs import Run

    if export is not None and target != "host":
        raise ConfigError(f"--export writes kernels of this machine: the target is {target!r}, not host")
    arguments = {"operation": operation, "target": target, "tuner": tuner, "trials": trials, "board": board}
    problem = partial(_problem, target=target, board=board, token_file=token_file)
    if _is_network(operation):
        with Run.open(run, "tune", arguments, seed) as opened:
            place = records or opened.path / "records.jsonl"
            network = operation, shape(in_shape), target, problem, place
            facts = tune_network(*network, tuner, trials, seed, export)
            opened.write_result(facts)
        return network_outcome(opened.path, as_json, facts)
    op = ops.parse(operation)
    space, runner, default = problem(op)
    with Run.open(run, "tune", arguments, seed) as opened:
        place = records or opened.path / "records.jsonl"
        facts = _work(space, runner, default, place, tuner, trials, seed)
        opened.write_result({"kind": "tune", "operation": operation, "target": target, **facts})
    if export is not None:
        ops.Kernel(op, tuple(facts["best"]["config"])).export(export)
    return _outcome(opened.path, as_json, facts)


def _is_network(text: str) -> bool:
    """Operators are written KIND:SIZES; networks by a name, a folder, or a factory of a module or file."""
    head, mark, _ = text.partition(":")
    return not mark or "." in head or Path(text).is_dir()


def _problem(
    op: "Operator", target: str, board: str | None, token_file: Path | None
) -> tuple["Space", "Runner", tuple[int, ...]]:
    """Space, runner and the configuration one would take without tuning."""
    from netfit.compile import ops, tune

    if (board is None) != (token_file is None):
        raise ConfigError("--board and --token-file belong together: give both")
    if target == "vta" or target.startswith("vta:"):
        return _vta(op, target)
    m = ops.machine(target)
    if board is None or token_file is None:
        return op.space(m), tune.LocalRunner(op, target), op.default(m)
    try:
        token = token_file.read_text(encoding="utf-8").strip()
    except OSError as e:
        raise ConfigError(f"--token-file {token_file}: {e.strerror}") from e
    return op.space(m), tune.RemoteRunner(op, target, board, token), op.default(m)


def _vta(op: "Operator", target: str) -> tuple["Space", "Runner", tuple[int, ...]]:
    from netfit.compile import ops, tune
    from netfit.targets.vta import Config, Conv, best_knobs

    if not isinstance(op, ops.Conv2d):
        raise ConfigError(f"a VTA runs convolutions and products: {op.name} is neither")
    core, z = Config.from_text(target.partition(":")[2]), op.sizes
    conv = Conv.of(core, n=z.n, c=z.c, h=z.h, w=z.w, k=z.k, r=z.r, s=z.s, stride=z.stride, padding=z.padding)
    return tune.vta_space(conv, core), tune.VtaRunner(conv, core), tuple(best_knobs(conv, core))


def _work(
    space: "Space", runner: "Runner", default: tuple[int, ...], place: Path, tuner: str, trials: int, seed: int
) -> dict[str, Any]:
    from netfit.compile.tune import RandomTuner, Study, make

    study = Study(place, make(tuner, space, seed), runner)
    best = study.run(trials)
    facts: dict[str, Any] = {
        "space": space.name, "runner": runner.target, "points": space.size, "why_invalid": space.why_invalid(),
        "tuner": tuner, "measured": study.measured, "attempts": len(study.history), "curve": _curve(study),
        "statuses": _statuses(study), "baseline": None, "map": _map(space),
    }  # fmt: skip
    if runner.target.startswith("vta"):  # a simulator's answers cost nothing: as many, at random
        other = Study(place.with_name("baseline.jsonl"), RandomTuner(space, seed, static=False), runner)
        other.run(trials, stop=lambda _: False)
        facts["baseline"] = _curve(other)
    usual = runner.run([default])[default].seconds if space.why(default) is None else None
    seconds = best.outcome.seconds or 0.0
    facts["best"] = {
        "config": list(best.config), "knobs": dict(zip(space.knobs, best.config, strict=True)), "seconds": seconds,
        "found_at": best.attempts, "noise": best.outcome.noise, "default_s": usual,
    }  # fmt: skip
    return facts


def _curve(study: "Study") -> list[tuple[int, float]]:
    return [(p.attempts, p.best) for p in study.history if p.best is not None]


def _statuses(study: "Study") -> dict[str, int]:
    found: dict[str, int] = {}
    for point in study.history:
        found[point.outcome.status] = found.get(point.outcome.status, 0) + 1
    return found


def _map(space: "Space") -> dict[str, Any] | None:
    """Share of valid points over the two knobs with the most values."""
    if not space.enumerable:
        return None
    order = sorted(space.knobs, key=lambda k: -len(space.knobs[k]))[:2]
    if len(order) < 2 or min(len(space.knobs[k]) for k in order) < 2:
        return None
    places = [list(space.knobs).index(k) for k in order]
    x, y = (space.knobs[k] for k in order)
    counts = {(a, b): [0, 0] for a in x for b in y}
    for config in space.all:
        cell = counts[config[places[0]], config[places[1]]]
        cell[0] += 1
        cell[1] += space.why(config) is None
    share = [[counts[a, b][1] / max(1, counts[a, b][0]) for a in x] for b in y]
    return {"x": order[0], "y": order[1], "xs": list(x), "ys": list(y), "share": share}


def _outcome(place: Path, as_json: bool, facts: Mapping[str, Any]) -> Output:
    write_page(place)
    best, why = facts["best"], facts["why_invalid"]
    text = table(("knob", "best"), [(name, str(value)) for name, value in best["knobs"].items()])
    valid = why.get("ok", 0) / sum(why.values())
    text += f"\n{si(best['seconds'], 's')} after {best['found_at']} of {facts['attempts']} attempts"
    if best["default_s"] is not None:
        text += f"; without tuning {si(best['default_s'], 's')}"
    text += f"\n{facts['points']} configurations, {valid:.1%} valid; {facts['measured']} measured in this run"
    return answer(as_json, {"run": place, **facts}, f"{text}\nreport: {place / 'report.html'}")


def serve(
    *,
    token_file: Annotated[Path, Parameter(help="File with the token that clients must send, 16 characters or more.")],
    address: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="0: any free one.")] = 8766,
    target: Annotated[str, Parameter(help="Machine the program is for: host, cortex-a72 ...")] = "host",
    write: Annotated[Path | None, Parameter(help="Only write the program here, to be copied to a board.")] = None,
    as_json: Json = False,
) -> Output:
    """Run the static program that takes kernels over the network, or write it for a board without Python."""
    import os

    from netfit.compile import tune
    from netfit.io import write_bytes

    command = tune.serve(token_file, address, port, target)
    if write is not None:
        write_bytes(write, Path(command[0]).read_bytes())
        write.chmod(0o755)
        text = f"{write}: run it on the board as {write.name} ADDRESS PORT TOKEN_FILE"
        return answer(as_json, {"program": write, "target": target}, text)
    if target != "host":
        raise ConfigError(f"a program for {target} does not run here: --write FILE keeps it for the board")
    if not token_file.is_file():
        raise ConfigError(f"--token-file {token_file}: no such file")
    os.execv(command[0], command)
    return Output("")
