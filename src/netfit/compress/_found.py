"""From a space to the network that is shipped: by search, or by one of the classic methods."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from netfit.io import read_artifact, write_artifact
from netfit.search import Row
from netfit.seeding import derive
from netfit.surgery import Policy, Quantization, apply, calibrate
from netfit.train import fit

from ._cost import Meter
from ._evaluate import CALIBRATION_BATCH
from ._families import Family, uniform_precision
from ._ladder import promoted
from ._learned import gated, ranked_candidate, ungated
from ._search import Search
from ._space import Candidate, SearchSpace

if TYPE_CHECKING:
    from ._job import Job

__all__ = ["Found", "by_family", "by_search"]


@dataclass(frozen=True)
class Found:
    """What a job ships, and what it tried for it.

    Attributes:
        space: what there was to choose from.
        candidate: the chosen one.
        policy: the same as a policy.
        network: it, retrained.
        history: of the retraining.
        rows: every trial that was measured.
        number: trial of the chosen one.
        search: where the trials come from; None for a family without a choice.
    """

    space: SearchSpace
    candidate: Candidate
    policy: Policy
    network: nn.Module
    history: Mapping[str, Any]
    rows: list[Row]
    number: int
    search: Search | None = None


def by_search(job: "Job", space: SearchSpace, base: nn.Module, gauge: Meter) -> Found | None:
    """Search, promote the best candidates rung by rung, retrain. None where the run is another process's."""
    settings = job.settings
    space = job.stepped(space, base, gauge, job.target)
    evaluator = job.evaluator(base, space)
    search = job.search(evaluator, gauge, job.target, job.run.path, store=settings.store)
    rows = search.run(settings.trials, helping=job.run.joined, ray=settings.ray)
    if job.run.joined:
        return None
    best, met = promoted(rows, settings.finalists)
    ladder = job.ladder()
    if not met:
        return _kept(space, evaluator.build(space.candidate(best[0].params)), best[0], rows, search, {})
    best = ladder.choose(best, space, evaluator, settings.retrained)
    row, network, history = ladder.finish(best, lambda r: evaluator.build(space.candidate(r.params)), base)
    return _kept(space, network, row, rows, search, history)


def by_family(job: "Job", chosen: Family, space: SearchSpace, base: nn.Module, gauge: Meter) -> Found:
    """What a classic method makes of the network: nothing is searched but the width that meets the goal."""
    if chosen.replaces is not None:
        return _replaced(job, chosen, chosen.replaces, space, base, gauge)
    space = uniform_precision(space, chosen.precision, job.target, job.settings.ignore)
    if not chosen.prunes:
        full = replace(space, steps={g: s[-1:] for g, s in space.steps.items()})
        evaluator = job.evaluator(base, full)
        network = evaluator.build(full.candidate({}))
        row = _row(job, evaluator.score(network), gauge, network)
        return _trained(job, chosen, full, network, row, base)
    space = job.stepped(space, base, gauge, job.target) if chosen.removes is None else space
    start, gates = _with_gates(job, base, space) if chosen.learned else (base, {})
    evaluator = job.evaluator(start, space, {name: gate.abs() for name, gate in gates.items()})

    def at(share: float) -> Candidate:
        return ranked_candidate(space, gates, share) if gates else space.uniform(share)

    if chosen.removes is not None:
        candidate = at(1 - chosen.removes)
        network = evaluator.build(candidate)
        row = _row(job, evaluator.score(network), gauge, network, space.params(candidate))
        return _trained(job, chosen, space, network, row, base)
    search = job.search(evaluator, gauge, job.target, job.run.path, sampler="uniform", at=at)
    rows = search.run(job.settings.trials)
    (row, *_), met = promoted(rows, 1)
    network = evaluator.build(space.candidate(row.params))
    if not met:
        return _kept(space, network, row, rows, search, {})
    return replace(_trained(job, chosen, space, network, row, base), rows=rows, search=search)


def _kept(
    space: SearchSpace, network: nn.Module, row: Row, rows: list[Row], search: Search | None, history: Mapping[str, Any]
) -> Found:
    candidate = space.candidate(row.params)
    return Found(space, candidate, space.policy(candidate), network, history, rows, row.number, search)


def _row(job: "Job", score: float, gauge: Meter, network: nn.Module, params: Mapping[str, Any] | None = None) -> Row:
    """The only trial of a method that leaves no choice."""
    cost = job.run.stage("family", lambda: asdict(gauge.cost(network)))
    excess = {"latency": cost["ratio"] - job.goal * gauge.margin}
    point = dict(params or {})
    return Row(0, "complete", point, job.run.seed, score, excess, {"cost": cost}, None, job.settings.family, None)


def _trained(job: "Job", chosen: Family, space: SearchSpace, network: nn.Module, row: Row, base: nn.Module) -> Found:
    """The network retrained, unless it misses its goal; from new weights where the method asks for it."""
    history: Mapping[str, Any] = {}
    if row.feasible or job.goal == 1:
        if chosen.fresh:
            _forget(network, derive(job.run.seed, "student"))
        _, network, history = job.ladder(chosen.taught).finish([row], lambda _: network, base)
    return _kept(space, network, row, [row], None, history)


def _replaced(job: "Job", chosen: Family, policy: Policy, space: SearchSpace, base: nn.Module, gauge: Meter) -> Found:
    network = apply(base, policy, *job.example).eval()
    if Quantization.of(network) is not None:
        calibrate(network, job.calibration().split(CALIBRATION_BATCH))
    fixed = replace(
        space,
        steps={g: s[-1:] for g, s in space.steps.items()},
        precisions={n: p[:1] for n, p in space.precisions.items()},
    )
    row = _row(job, job.evaluator(base, fixed).score(network), gauge, network)
    return replace(_trained(job, chosen, fixed, network, row, base), policy=policy)


def _with_gates(job: "Job", base: nn.Module, space: SearchSpace) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network after training with a gate on every channel, and the gates."""
    network, place, r = copy.deepcopy(base), job.run.path / "stages" / "gated", job.recipe

    def work() -> dict[str, Any]:
        gates = gated(network, space)
        fit(
            network, job.train_set.tensors(), epochs=max(1, job.epochs // 3), lr=r.lr / 4, batch_size=r.batch_size,
            weight_decay=r.weight_decay, seed=derive(job.run.seed, "gates"), augment=r.augment,
            progress=lambda f: job.progress("gates", f),
        )  # fmt: skip
        kept = {f"gates/{name}": gate.detach().clone() for name, gate in gates.items()}
        weights = {f"model/{name}": tensor for name, tensor in ungated(network).state_dict().items()}
        write_artifact(place, {}, kept | weights)
        return {"groups": len(gates)}

    job.run.stage("gates", work)
    tensors = read_artifact(place).tensors
    trained = copy.deepcopy(base)
    trained.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})
    return trained.eval(), {n.removeprefix("gates/"): t for n, t in tensors.items() if n.startswith("gates/")}


def _forget(network: nn.Module, seed: int) -> None:
    """New weights for every layer that can draw them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
