"""``netfit memory``: what a training step keeps, what it takes, and how to make it fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._options import Classes, Count, InShape, Json, Model, Seed, shape
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.memory import Inventory, MemoryPlan, MemoryReport, TrainingStep
    from netfit.surgery import Policy

__all__ = ["inspect", "max_batch", "measure", "plan"]

Batch = Annotated[Count, Parameter(help="Samples of one step.")]
Data = Annotated[str | None, Parameter(help="Data set the batch is taken from; noise when not given.")]
Saved = Annotated[
    str | None,
    Parameter(help="How activations are kept: lossless, q8, q4, q2, pool2, bsr10, bsr25 ... or a policy file."),
]
Optimizer = Annotated[Literal["sgd", "adam", "none"], Parameter(help="Whose state is counted; sgd has momentum.")]


def inspect(
    model: Model, /, *, policy: Saved = None, data: Data = None, batch: Batch = 32, in_shape: InShape = None,
    num_classes: Classes = None, seed: Seed = 0, as_json: Json = False,
) -> Output:  # fmt: skip
    """List the tensors that autograd saves."""
    how = _policy(policy)
    step = _step(model, data, batch, in_shape, num_classes, "none", seed)
    from netfit.memory import inventory

    found = inventory(step, policy=how, seed=seed)
    facts = {"model": model, "batch": batch, "policy": policy, **found.to_json()}
    return answer(as_json, facts, _listed(found))


def _listed(found: "Inventory") -> str:
    rows = [
        (r.name, r.kind, r.role, "x".join(map(str, r.shape)), si(r.kept_bytes, "B"), ", ".join(found.shared_with(r)),
         r.lossless or "")
        for r in found.owners() if r.nbytes >= 4096
    ]  # fmt: skip
    text = table(("operation", "kind", "role", "shape", "kept", "shared with", "exact in less"), rows)
    kinds = ", ".join(f"{kind} {si(n, 'B')}" for kind, n in found.by_kind().items() if n >= 4096)
    return f"{text}\nkept for the backward pass: {si(found.total, 'B')} ({kinds})"


def measure(
    model: Model, /, *, policy: Saved = None,
    recompute: Annotated[
        str | None, Parameter(help="Blocks that run again in the backward pass, as a pattern of modules: 'layer?.?'.")
    ] = None,
    data: Data = None, batch: Batch = 32, in_shape: InShape = None,
    num_classes: Classes = None, optimizer: Optimizer = "sgd", seed: Seed = 0, as_json: Json = False,
) -> Output:  # fmt: skip
    """Measure peak memory and time of a training step."""
    how = _policy(policy)
    step = _step(model, data, batch, in_shape, num_classes, optimizer, seed)
    from contextlib import nullcontext

    from netfit.memory import measure as look
    from netfit.memory import recompute_blocks

    with recompute_blocks(step.model, recompute) if recompute else nullcontext():
        found = look(step, policy=how, seed=seed)
    parts = {**found.held, "saved activations": found.saved or 0, "workspaces and gradients": found.transient}
    text = table(("part", "bytes"), [(name, si(n, "B")) for name, n in parts.items()])
    text += f"\npeak: {_peaks(found)}; step: {si(found.seconds, 's')} of one core"
    return answer(
        as_json, {"model": model, "batch": batch, "policy": policy, "recompute": recompute, **found.to_json()}, text
    )


def _peaks(found: "MemoryReport") -> str:
    seen = "" if found.process_peak is None else f" (by the resident set of the process {si(found.process_peak, 'B')})"
    return si(found.peak, "B") + seen


def plan(
    model: Model, /, *,
    budget: Annotated[str | None, Parameter(help="2GB, 512MiB, or a part of the peak, 0.5. None: least.")] = None,
    max_grad_error: Annotated[float, Parameter(help="Most relative error of the gradient.")] = 0.1,
    objective: Annotated[Literal["gradient", "time"], Parameter(help="What to spare.")] = "gradient",
    data: Data = None, batch: Batch = 32, in_shape: InShape = None, num_classes: Classes = None,
    optimizer: Optimizer = "sgd",
    out: Annotated[Path | None, Parameter(help="Policy file to write; policy.toml of the run by default.")] = None,
    run: Annotated[Path | None, Parameter(help="Run directory; runs/... by default.")] = None,
    seed: Seed = 0, as_json: Json = False,
) -> Output:  # fmt: skip
    """Plan how to keep every activation so that a training step fits a budget."""
    size = shape(in_shape)
    from netfit.memory import MemoryPlan
    from netfit.memory import plan as make
    from netfit.runs import Run

    arguments = {
        "model": model, "budget": budget, "max_grad_error": max_grad_error, "objective": objective, "data": data,
        "batch": batch, "in_shape": size, "num_classes": num_classes, "optimizer": optimizer,
    }  # fmt: skip
    step = _step(model, data, batch, in_shape, num_classes, optimizer, seed)
    with Run.open(run, "memory", arguments, seed) as opened:

        def work() -> dict[str, Any]:
            return make(step, budget, max_grad_error=max_grad_error, objective=objective, seed=seed).to_json()

        found = MemoryPlan.from_json(opened.stage("plan", work))
        place = out or opened.path / "policy.toml"
        found.policy.save(place)
        facts = {"kind": "memory", "model": model, "batch": batch, "data": data, "plan": found.to_json()}
        opened.write_result(facts)
    return _outcome(opened.path, place, as_json, facts, found)


def _outcome(run: Path, policy: Path, as_json: bool, facts: Mapping[str, Any], found: "MemoryPlan") -> Output:
    write_page(run)
    text = f"{found.table()}\n{len(found.rows)} tensors packed; policy: {policy}\nreport: {run / 'report.html'}"
    return answer(as_json, {"run": run, "policy": policy, **facts}, text)


def max_batch(
    model: Model, /, *, budget: Annotated[str, Parameter(help="Such as 8GB.")],
    policy: Annotated[str | None, Parameter(help="As for measure, or auto: the plan of least memory.")] = None,
    data: Data = None, batch: Annotated[Count, Parameter(help="Samples to start from.")] = 8, in_shape: InShape = None,
    num_classes: Classes = None, optimizer: Optimizer = "sgd", seed: Seed = 0, as_json: Json = False,
) -> Output:  # fmt: skip
    """Find the largest batch whose training step fits."""
    how = policy if policy == "auto" else _policy(policy)
    step = _step(model, data, batch, in_shape, num_classes, optimizer, seed)
    from netfit.memory import max_batch_size

    largest = max_batch_size(step, budget, policy=how, seed=seed)
    facts = {"model": model, "budget": budget, "policy": policy, "batch": largest}
    return answer(as_json, facts, f"{largest} samples fit into {budget}")


def _policy(text: str | None) -> "str | Policy | None":
    """A codec's word as it is, a file read."""
    if text is None:
        return None
    if text.endswith((".toml", ".json")):
        from netfit.surgery import Policy

        return Policy.load(text)
    from netfit.memory.codecs import parse

    parse(text)
    return text


def _step(
    model: str, data: str | None, batch: int, in_shape: str | None, num_classes: int | None, optimizer: str, seed: int
) -> "TrainingStep":
    """A training step of a classifier on a batch of a data set, or of noise."""
    size = shape(in_shape)
    import torch

    from netfit import data as datasets
    from netfit.memory import TrainingStep
    from netfit.seeding import derive, seed_everything

    from ._network import open_network

    samples = None if data is None else datasets.load(data)
    seed_everything(seed)
    if samples is not None and not Path(model).is_dir():
        size, num_classes = size or samples.shape, num_classes or len(samples.classes)
    network = open_network(model, size, num_classes)
    net = network.model.train()
    generator = torch.Generator().manual_seed(derive(seed, "batch"))
    if samples is None:
        x = torch.randn(batch, *network.shape, generator=generator)
    else:
        x, y = samples.tensors(torch.randperm(len(samples), generator=generator)[:batch].numpy())
    outputs = _outputs(net, x[:2])
    if samples is None:
        y = torch.randint(outputs, (batch,), generator=generator)
    elif int(y.max()) >= outputs:
        raise ConfigError(f"{data} has {len(samples.classes)} classes, {model} {outputs} outputs: give --num-classes")
    made: torch.optim.Optimizer | None = None
    if optimizer == "sgd":
        made = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    elif optimizer == "adam":
        made = torch.optim.Adam(net.parameters(), lr=1e-4)
    return TrainingStep(net, x, y, torch.nn.functional.cross_entropy, made)


def _outputs(net: Any, x: Any) -> int:
    """Classes of a network, which is left in training mode."""
    import torch

    with torch.no_grad():
        out = net.eval()(x)
    net.train()
    if not isinstance(out, torch.Tensor) or out.ndim != 2:
        raise ConfigError("netfit memory trains classifiers: the network must return (batch, classes)")
    return int(out.shape[1])
