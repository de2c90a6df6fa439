"""Other tools at a task that netfit has done: the same network, trials, int8, score, clock, retraining and test.

    python -m benchmarks.galen                                                     # first
    python -m benchmarks.peers_compress --job runs/galen-quick/seed0/joint-0.1     # Torch-Pruning
    make peers                                                                     # the tools netfit does not need
    .venv-peers/bin/python -m benchmarks.peers_compress --peer fastnas --job runs/galen-quick/seed0/joint-0.1

Torch-Pruning prunes all layers by one global ranking, rounded to multiples of 16 channels; each trial is another ratio.
FastNAS (NVIDIA ModelOpt) scores every layer at every width and cuts to a share of the multiply-accumulates, which it
takes for the cost; several shares are tried, and one it cannot reach is left out. Both pick what netfit picks: the best
score within the latency. Their points are added to the job's report. Interrupted, it goes on with the same command.
"""

import argparse
import copy
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._common import record
from benchmarks.galen import NETS
from netfit.compress import Settings
from netfit.compress._cost import Meter
from netfit.compress._evaluate import CALIBRATION_BATCH, Evaluator
from netfit.compress._found import Found
from netfit.compress._job import Job
from netfit.compress._result import deployed
from netfit.errors import JobError
from netfit.io import read_artifact, read_json, write_artifact, write_json
from netfit.runs import Run
from netfit.search import Memo, Row
from netfit.surgery import Policy, Quantize, apply, calibrate, load, open_model
from netfit.targets import parse
from netfit.train import recalibrate
from netfit.workload import trace

ROUND_TO = 16
SHARES = (0.6, 0.45, 0.3, 0.2)  # of the multiply-accumulates, for FastNAS
KINDS = ("conv2d", "linear")


def main(words: Sequence[str] = ()) -> None:
    """Do or finish one tool at one job, and add its point to the job's ``peers.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers_compress")
    parser.add_argument("--job", type=Path, default=Path("runs/galen-quick/seed0/joint-0.1"))
    parser.add_argument("--peer", choices=sorted(PEERS), default="torch-pruning")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    begun, ours = read_json(options.job / "run.json"), read_json(options.job / "result.json")
    given = begun["arguments"]
    names = {f.name for f in fields(Settings)}
    settings = Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in names})
    place = options.job / "peers" / options.peer
    with Run.open(place, "peer", given | {"peer": options.peer}, begun["seed"], allow_drift=True) as run:
        job = Job(
            NETS[given["net"]], given["data"], parse(given["target"]), given["latency"], run, settings,
            lambda stage, facts: None,
        )  # fmt: skip
        theirs = _done(job, options, run)
    base, final = ours["base"]["accuracy"], ours["final"]
    point = {"name": options.peer, "ratio": theirs["final"]["ratio"], "accuracy": theirs["final"]["accuracy_deployed"]}
    known = options.job / "peers.json"
    rest = [p for p in (read_json(known) if known.exists() else []) if p["name"] != options.peer]
    write_json(known, [*rest, point])
    rows = [{"tool": "netfit", "ratio": final["ratio"], "accuracy": final["accuracy_deployed"]}]
    rows += [{"tool": p["name"], "ratio": p["ratio"], "accuracy": p["accuracy"]} for p in [*rest, point]]
    record(
        "peers_compress",
        [row | {"lost": round(100 * (base - row["accuracy"]), 2)} for row in rows],
        job=options.job.name,
        net=given["net"],
        goal=given["latency"],
        trials=settings.trials,
        held={
            f"better than {row['tool']}": rows[0]["accuracy"] >= row["accuracy"] + 0.003
            or (rows[0]["accuracy"] >= row["accuracy"] and rows[0]["ratio"] <= 0.85 * row["ratio"])
            for row in rows[1:]
        },
    )


def _done(job: Job, options: argparse.Namespace, run: Run) -> dict[str, Any]:
    """The tool's best network within the goal, retrained, exported and tested as netfit's was."""
    model, _ = open_model(job.spec, num_classes=job.classes, in_shape=job.shape)
    base = load(options.job / "base", model=copy.deepcopy(model)).model
    space = job.space(base, job.target)
    gauge, evaluator = job.meter(base, job.target), job.evaluator(base, space)
    memo, best = Memo(run.path / "memo.db"), None
    networks = PEERS[options.peer](base, job, evaluator, run)
    for name, make in networks:

        def judge(name: str = name, make: Callable[[], nn.Module] = make) -> dict[str, Any] | None:
            try:
                net = make()
            except Exception as e:  # another tool may raise anything
                print(f"{name}: {type(e).__name__}: {str(e)[:200]}", file=sys.stderr, flush=True)
                return None
            return judged(net, run.path / "networks" / name, job, evaluator, gauge)

        found = memo.call([options.peer, name], judge)
        if found is None:
            continue
        print(f"{name}: ratio {found['cost']['ratio']:.3f}, score {found['score']:.3f}", file=sys.stderr, flush=True)
        if found["cost"]["ratio"] <= job.goal * gauge.margin and (best is None or found["score"] > best[1]["score"]):
            best = name, found
    if best is None:
        raise JobError(f"{options.peer} reaches no latency of {job.goal:g}")
    name, found = best
    small, policy = _int8(_shaped(base, run.path / "networks" / name), job)
    row = Row(0, "complete", {}, run.seed, found["score"], {"latency": 0.0}, {"cost": found["cost"]}, None, None, None)
    _, network, history = job.ladder().finish([row], lambda _: small, base)
    low = space.uniform(1.0)
    shipped = Found(replace(space, steps={}), low, policy, network, history, [], 0)
    result: dict[str, Any] = run.stage("deploy", lambda: deployed(job, base, gauge, shipped))
    run.write_result(result)
    return result


def judged(net: nn.Module, place: Path, job: Job, evaluator: Evaluator, gauge: Meter) -> dict[str, Any]:
    """Score and cost of a pruned network in int8, as netfit's candidates get them; its weights are kept."""
    shutil.rmtree(place, ignore_errors=True)
    write_artifact(place, {}, {n: t.contiguous() for n, t in net.state_dict().items()})
    small, _ = _int8(net, job)
    return {"score": evaluator.score(small), "cost": asdict(gauge.cost(small))}


def _int8(net: nn.Module, job: Job) -> tuple[nn.Module, Policy]:
    x = job.example[0]
    recalibrate(net, job.calibration())
    policy = Policy({op.name: Quantize() for op in trace(net, x) if op.kind in KINDS})
    small = apply(net, policy, x).eval()
    calibrate(small, job.calibration().split(CALIBRATION_BATCH))
    return small, policy


def _shaped(base: nn.Module, place: Path) -> nn.Module:
    """The base network with kept weights of other widths; its layers' attributes follow the tensors."""
    tensors = read_artifact(place).tensors
    net = copy.deepcopy(base)
    for name, module in net.named_modules():
        for key in [k for k, v in module._parameters.items() if v is not None]:
            module._parameters[key] = nn.Parameter(tensors[f"{name}.{key}"].clone())
        for key in [k for k, v in module._buffers.items() if v is not None]:
            module._buffers[key] = tensors[f"{name}.{key}"].clone()
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = len(module.weight)
    return net


Networks = Iterator[tuple[str, Callable[[], nn.Module]]]


def torch_pruning(base: nn.Module, job: Job, evaluator: Evaluator, run: Run) -> Networks:
    """One network a trial."""
    return torch_pruning_cuts(base, job.example[0], job.settings.trials)


def torch_pruning_cuts(base: nn.Module, example: torch.Tensor, trials: int) -> Networks:
    """A global ranking by group magnitude, cut at rising ratios."""
    import torch_pruning as tp

    def pruned(ratio: float) -> nn.Module:
        net = copy.deepcopy(base)
        last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1:]
        tp.pruner.MagnitudePruner(
            net, example, tp.importance.GroupMagnitudeImportance(p=1), global_pruning=True,
            pruning_ratio=ratio, max_pruning_ratio=0.95, ignored_layers=last, round_to=ROUND_TO,
        ).step()  # fmt: skip
        return net.eval()

    for i in range(trials):
        ratio = 0.05 + 0.9 * i / max(1, trials - 1)
        yield f"ratio-{ratio:.4f}", lambda ratio=ratio: pruned(ratio)


def fastnas(base: nn.Module, job: Job, evaluator: Evaluator, run: Run) -> Networks:
    """One network a share of the multiply-accumulates: what FastNAS makes of scores of single layers.

    It scores every layer at every width once, refreshing BatchNorm itself, and keeps that for all shares.
    """
    import modelopt.torch.prune as mtp
    from modelopt.torch.prune.fastnas import FastNASConfig

    config = FastNASConfig().model_dump()
    for rules in config.values():
        for rule in (rules or {}).values():
            for divisor in ("channel_divisor", "feature_divisor"):
                if divisor in (rule or {}):
                    rule[divisor] = ROUND_TO  # 32 would leave nothing of a small network to prune
    data = torch.utils.data.TensorDataset(job.calibration())
    loader = torch.utils.data.DataLoader(data, batch_size=CALIBRATION_BATCH)

    def found(share: float) -> nn.Module:
        search = {
            "data_loader": loader, "collect_func": lambda batch: batch[0], "score_func": evaluator.score,
            "checkpoint": str(run.path / "fastnas.pth"),
        }  # fmt: skip
        net, _ = mtp.prune(
            copy.deepcopy(base), mode=[("fastnas", config)], constraints={"flops": f"{100 * share:g}%"},
            dummy_input=job.example[0], config=search,
        )  # fmt: skip
        return _plain(base, net)

    for share in SHARES:
        yield f"share-{share:g}", lambda share=share: found(share)


def _plain(base: nn.Module, net: nn.Module) -> nn.Module:
    """A network of torch's own classes with the tensors of one that ModelOpt made."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "net"
        write_artifact(place, {}, {n: t.detach().contiguous() for n, t in net.state_dict().items()})
        return _shaped(base, place).eval()


PEERS = {"torch-pruning": torch_pruning, "fastnas": fastnas}


if __name__ == "__main__":
    main(sys.argv[1:])
