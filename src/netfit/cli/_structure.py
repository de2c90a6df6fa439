"""``netfit structure``: structured layers where they are faster on this machine, dense ones where they are not."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from netfit.errors import ConfigError

from ._options import Classes, Count, InShape, Json, Model, Original, Seed, shape
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.structured.survey import Layer

__all__ = ["bench", "doubling", "structure"]

LARGEST = 16384  # features of a size sweep: one dense layer of that size already holds a gigabyte
Seconds = Annotated[float, Parameter(help="Seconds of one measurement.", validator=Number(gt=0))]


def structure(
    model: Model,
    /,
    *,
    in_shape: InShape = None,
    num_classes: Classes = None,
    original: Original = None,
    batch: Annotated[Count, Parameter(help="Samples of one inference.")] = 1,
    runtime: Annotated[
        Literal["torch", "openvino", "onnxruntime"], Parameter(help="Where the layers are timed.")
    ] = "torch",
    min_speedup: Annotated[
        float, Parameter(help="Times faster than dense that a layer must become.", validator=Number(gt=0))
    ] = 1.1,
    seconds: Seconds = 1.0,
    threads: Annotated[Count, Parameter(help="Threads of one layer.")] = 1,
    run: Annotated[Path | None, Parameter(help="Run directory for policy.toml, result.json and report.html.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Try structured layers at every linear layer and convolution of a network."""
    size = shape(in_shape)
    from netfit.seeding import seed_everything
    from netfit.structured.survey import chosen_policy, compare_networks, survey
    from netfit.surgery import Policy

    from ._network import open_network

    seed_everything(seed)
    network = open_network(model, size, num_classes, original)
    x = network.inputs(batch)
    settings: dict[str, Any] = {"runtime": runtime, "budget_s": seconds, "threads": threads, "seed": seed}
    layers = survey(network.model, x, min_speedup=min_speedup, show=_show, **settings)
    wanted = chosen_policy(layers)
    whole = compare_networks(network.model, wanted, x, **settings) if wanted else None
    # Layers timed alone do not always add up: a network that is slower with all of them keeps its dense weights.
    policy = wanted if whole is not None and whole.ratio < 1 else Policy()
    facts = {
        "kind": "structure", "model": model, "batch": batch, "runtime": runtime, "threads": threads,
        "min_speedup": min_speedup, "layers": [_row(layer) for layer in layers], "policy": policy.to_dict(),
        "network": None if whole is None else {"speedup": 1 / whole.ratio, "lo": 1 / whole.hi, "hi": 1 / whole.lo},
    }  # fmt: skip
    if run is not None:
        _keep(run, facts, policy.to_toml(), seed)
    return answer(as_json, {"run": run, **facts}, _text(facts, run))


def bench(
    *,
    sizes: Annotated[str, Parameter(name="--sizes", help="FIRST..LAST, doubling, or sizes separated by commas.")] = (
        "64..4096"
    ),
    batch: Annotated[Count, Parameter(help="Samples.")] = 128,
    train: Annotated[bool, Parameter(help="Time forward and backward pass.", negative="", show_default=False)] = False,
    seconds: Seconds = 1.0,
    threads: Annotated[Count, Parameter(help="Threads of one layer.")] = 1,
    run: Annotated[Path | None, Parameter(help="Run directory for result.json and report.html.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Measure structured layers of many sizes against nn.Linear."""
    wanted = doubling(sizes)
    from netfit.structured.survey import sweep_sizes

    rows = sweep_sizes(wanted, batch, train=train, budget_s=seconds, threads=threads, seed=seed, show=_show)
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("n", "dense_s")))
    crossover = {name: next((r["n"] for r in rows if r.get(name, 0) > 1), None) for name in names}
    facts = {"kind": "structure-bench", "batch": batch, "train": train, "threads": threads, "sizes": rows,
             "crossover": crossover}  # fmt: skip
    if run is not None:
        _keep(run, facts, None, seed)
    cells = [(str(r["n"]), si(r["dense_s"], "s"), *(f"{r[n]:.2f} x" if n in r else "-" for n in names)) for r in rows]
    text = table(("size", "dense", *names), cells)
    text += "\nfaster than dense from: " + ", ".join(f"{name} {n or 'nowhere'}" for name, n in crossover.items())
    return answer(as_json, {"run": run, **facts}, text)


def doubling(text: str) -> list[int]:
    """Read ``64..4096`` (doubling from one to the other) or ``100,1000``.

    Raises:
        ConfigError: it is neither.

    >>> doubling("64..300"), doubling("100,30")
    ([64, 128, 256], [30, 100])
    """
    parts = text.replace("..", ",").split(",")
    if not all(p.strip().isdecimal() and 0 < int(p) <= LARGEST for p in parts):
        raise ConfigError(f"--sizes {text!r}: allowed are 64..4096 or 100,1000, each at most {LARGEST}")
    numbers = [int(p) for p in parts]
    if ".." not in text:
        return sorted(set(numbers))
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ConfigError(f"--sizes {text!r}: FIRST..LAST needs FIRST <= LAST")
    return [numbers[0] << i for i in range(32) if numbers[0] << i <= numbers[1]]


def _show(name: str) -> None:
    print(f"measuring {name}", file=sys.stderr)


def _row(layer: "Layer") -> dict[str, Any]:
    candidates = [
        {
            "technique": c.technique.name, "settings": c.technique.settings(), "params": c.params,
            "rel_error": c.rel_error, "low_rank_error": c.low_rank_error, "speedup": c.speedup, "lo": c.lo, "hi": c.hi,
            "time_s": c.time_s, "chosen": c is layer.choice,
        }
        for c in layer.candidates
    ]  # fmt: skip
    return {
        "name": layer.name, "kind": layer.kind, "input": list(layer.input), "params": layer.params,
        "time_s": layer.time_s, "keep_dense": layer.choice is None, "candidates": candidates,
    }  # fmt: skip


def _keep(place: Path, facts: Mapping[str, Any], policy: str | None, seed: int) -> None:
    from netfit.io import write_bytes
    from netfit.runs import Run

    arguments = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    with Run.open(place, str(facts["kind"]), arguments, seed) as opened:
        opened.write_result(facts)
        if policy is not None:
            write_bytes(opened.path / "policy.toml", policy.encode())
    write_page(place)


def _text(facts: Mapping[str, Any], run: Path | None) -> str:
    cells: list[Sequence[str]] = []
    for layer in facts["layers"]:
        size = "x".join(map(str, layer["input"]))
        cells.append((layer["name"], "dense", si(layer["params"]), "", "", si(layer["time_s"], "s"), "", size))
        for c in layer["candidates"]:
            settings = ", ".join(f"{k}={v}" for k, v in c["settings"].items())
            name = f"{c['technique']}({settings})" if settings else c["technique"]
            errors = f"{c['rel_error']:.3f}", f"{c['low_rank_error']:.3f}"
            speed = f"{c['speedup']:.2f} x", "take" if c["chosen"] else ""
            cells.append(("", name, si(c["params"]), *errors, si(c["time_s"], "s"), *speed))
        if layer["keep_dense"]:
            cells.append(("", "keep dense", "", "", "", "", "", ""))
    columns = ("layer", "weight", "values", "error", "low rank", "time", "faster", "")
    taken = sum(not layer["keep_dense"] for layer in facts["layers"])
    text = table(columns, cells) + f"\n{taken} of {len(facts['layers'])} layers are faster structured"
    if facts["network"]:
        text += f"; the network with all of them: {facts['network']['speedup']:.2f} x"
        text += "" if facts["policy"] else ", so keep dense everywhere (the policy is empty)"
    text += "\nerrors are those of the projected weights, before any retraining; low rank: as many values"
    return text + (f"\npolicy: {run / 'policy.toml'}, report: {run / 'report.html'}" if run else "")
