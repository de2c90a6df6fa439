"""``netfit analog sites|walk|harden|env``: noise at the sites of a network."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from netfit.errors import ConfigError

from ._options import Count, InShape, Json, Model, Original, Seed, shape
from ._output import Output, answer, table, write_page

if TYPE_CHECKING:
    from torch import Tensor

    from netfit.analog import Trainer

    from ._network import Network

__all__ = ["env", "harden", "sites", "walk"]

Data = Annotated[str, Parameter(help="Data set to train and judge on; see netfit data list.")]
Noise = Annotated[
    Literal["additive", "multiplicative", "mixed"],
    Parameter(help="mixed: half of the strength added, half multiplied."),
]
At = Annotated[str, Parameter(help="Sites, as a pattern of names or kind:relu; all of them by default.")]
Positive = Annotated[float, Parameter(validator=Number(gt=0))]
Epochs = Annotated[Count, Parameter(help="Passes over the training samples, for every training.")]
Rate = Annotated[float, Parameter(help="Highest learning rate, of Adam.", validator=Number(gt=0))]
Samples = Annotated[Count | None, Parameter(help="Training samples to use; all by default.")]
Judged = Annotated[Count, Parameter(help="Test samples to judge on.")]
RunDir = Annotated[Path | None, Parameter(help="Run directory, new or to go on with; runs/... by default.")]


def sites(model: Model, /, *, in_shape: InShape = None, original: Original = None, as_json: Json = False) -> Output:
    """Places of a network where noise can sit."""
    from netfit import analog

    from ._network import open_network

    network = open_network(model, shape(in_shape), original=original)
    found = analog.sites(network.model, network.inputs())
    rows = [(s.name, str(s.call), s.kind, "x".join(map(str, s.shape[1:]))) for s in found]
    facts = [{"site": s.name, "call": s.call, "kind": s.kind, "shape": list(s.shape)} for s in found]
    return answer(as_json, {"model": model, "sites": facts}, table(("site", "call", "kind", "one sample"), rows))


def walk(
    model: Model,
    /,
    *,
    data: Data,
    noise: Noise = "additive",
    at: At = "*",
    seeds: Annotated[Count, Parameter(help="Repetitions: trainings, or draws of noise for a trained network.")] = 3,
    retrain: Annotated[
        bool, Parameter(help="Also train under the noise of every level.", negative="", show_default=False)
    ] = False,
    levels: Annotated[
        str | None, Parameter(help="Measure at these strengths, by commas, instead of searching.")
    ] = None,
    largest: Annotated[Positive, Parameter(help="Strength at which the search gives up.")] = 1e6,
    epochs: Epochs = 10,
    lr: Rate = 1e-3,
    samples: Samples = None,
    test_samples: Judged = 2000,
    jobs: Annotated[Count, Parameter(help="Worker processes.")] = 1,
    ray: Annotated[str | None, Parameter(help="Ray cluster that does the work: auto, local, ray://host:10001.")] = None,
    original: Original = None,
    run: RunDir = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Find how much noise each site of a network bears."""
    fixed = None if levels is None else _numbers("--levels", levels)
    from netfit import analog
    from netfit.runs import Run

    network, trainer, judged = _subject(model, data, original, epochs, lr, samples, test_samples, seed)
    arguments = {
        "model": model, "data": data, "noise": noise, "at": at, "seeds": seeds, "retrain": retrain, "levels": fixed,
        "largest": largest, "epochs": epochs, "lr": lr, "samples": samples, "test_samples": test_samples,
    }  # fmt: skip
    subject = network.model if Path(model).is_dir() and not retrain else trainer
    with Run.open(run, "analog-walk", arguments, seed) as opened:
        print(f"run directory: {opened.path}", file=sys.stderr)
        found = analog.walk(
            subject, _noise(noise), judged, at=at, seeds=seeds, retrain=retrain, levels=fixed, largest=largest,
            folder=opened.path / "walk", n_jobs=jobs, ray=ray,
            progress=lambda done, total: print(f"walk: {done}/{total}", file=sys.stderr, flush=True),
        )  # fmt: skip
        facts = {"kind": "analog", "task": "walk", **found.to_dict()}
        opened.write_result(facts)
    return _outcome(opened.path, as_json, facts, _walk_text(facts))


def harden(
    model: Model,
    /,
    *,
    data: Data,
    std: Annotated[Positive, Parameter(help="Nominal standard deviation of the noise at every site.")],
    method: Annotated[
        Literal["noisy", "vant", "qat_constant_scale"],
        Parameter(help="Constant noise, noise that varies from sample to sample, or large quantization steps."),
    ] = "vant",
    noise: Noise = "additive",
    alpha: Annotated[float, Parameter(help="VANT: constant part of the strength.", validator=Number(gte=0))] = 0.45,
    theta: Annotated[float | None, Parameter(help="VANT: spread; 0.4 x --std by default.")] = None,
    scale: Annotated[Positive, Parameter(help="Constant-scale training: step of the ReLU outputs.")] = 4.0,
    levels: Annotated[str | None, Parameter(help="Strengths to judge at, by commas.")] = None,
    epochs: Epochs = 10,
    lr: Rate = 1e-3,
    samples: Samples = None,
    test_samples: Judged = 2000,
    run: RunDir = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Train a network for noisy hardware, beside clean training and the best constant noise."""
    fixed = None if levels is None else _numbers("--levels", levels)
    from netfit import analog, surgery
    from netfit.runs import Run

    network, trainer, judged = _subject(model, data, None, epochs, lr, samples, test_samples, seed)
    arguments = {
        "model": model, "data": data, "std": std, "method": method, "noise": noise, "alpha": alpha, "theta": theta,
        "scale": scale, "levels": fixed, "epochs": epochs, "lr": lr, "samples": samples, "test_samples": test_samples,
    }  # fmt: skip
    with Run.open(run, "analog-harden", arguments, seed) as opened:
        print(f"run directory: {opened.path}", file=sys.stderr)
        found = analog.harden(
            trainer, judged, std, method=method, noise=_noise(noise, std), alpha=alpha, theta=theta, scale=scale,
            levels=fixed, seed=seed, run=opened,
            progress=lambda name, i, n: print(f"train {name}: {i + 1}/{n}", file=sys.stderr, flush=True),
        )  # fmt: skip
        surgery.save(
            found.model, opened.path / "model", spec=network.spec, example_inputs=[network.inputs()],
            policy=found.policy, num_classes=network.num_classes,
        )  # fmt: skip
        facts = {"kind": "analog", "task": "harden", **found.to_dict()}
        opened.write_result(facts)
    return _outcome(opened.path, as_json, facts, _harden_text(facts) + f"\nnetwork: {opened.path / 'model'}")


def env(
    model: Model,
    /,
    *,
    data: Data,
    trace: Annotated[Path | None, Parameter(help="CSV file of a measured course: a header, then time,std.")] = None,
    std: Annotated[Positive, Parameter(help="Mean of a synthetic course, without --trace.")] = 1.0,
    spread: Annotated[float, Parameter(help="Its standard deviation.", validator=Number(gte=0))] = 0.3,
    tau: Annotated[Positive, Parameter(help="Its correlation time in steps.")] = 20.0,
    steps: Annotated[Count, Parameter(help="Steps to look at.")] = 100,
    threshold: Annotated[
        float | None, Parameter(help="Accuracy below which it has failed; half way to chance by default.")
    ] = None,
    noise: Noise = "additive",
    at: At = "*",
    test_samples: Judged = 500,
    original: Original = None,
    run: RunDir = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Judge a trained network while the noise of its hardware fluctuates."""
    from dataclasses import asdict

    from netfit import analog
    from netfit.analog import schedules
    from netfit.runs import Run

    if not Path(model).is_dir():
        raise ConfigError(f"{model} comes without weights: give the folder of a trained network")
    network, _, judged = _subject(model, data, original, 1, 1e-3, 1, test_samples, seed)
    course = schedules.OrnsteinUhlenbeck(std, spread, tau, seed) if trace is None else schedules.Trace.load(trace)
    arguments = {"model": model, "data": data, "course": asdict(course), "steps": steps, "threshold": threshold}
    arguments |= {"noise": noise, "at": at, "test_samples": test_samples}
    with Run.open(run, "analog-env", arguments, seed) as opened:
        found = analog.environment(
            network.model, _noise(noise), judged, course, steps, threshold=threshold, at=at, seed=seed
        )
        facts = {"kind": "analog", "task": "env", "course": "synthetic" if trace is None else str(trace)}
        facts |= asdict(found) | {"robustness": asdict(found.robustness)}
        opened.write_result(facts)
    failed = "never" if found.time_to_failure is None else f"at step {found.time_to_failure}"
    text = f"accuracy without noise {found.clean:.4f}; kept of it: mean {found.robustness.mean:.3f}, worst "
    text += f"{found.robustness.worst:.3f}\nfell below {found.threshold:.3f} {failed}, of {steps} steps"
    return _outcome(opened.path, as_json, facts, text)


def _subject(
    model: str, data: str, original: str | None, epochs: int, lr: float, samples: int | None, test_samples: int,
    seed: int,
) -> "tuple[Network, Trainer, tuple[Tensor, Tensor]]":  # fmt: skip
    """The network, how to train it anew, and what to judge it on."""
    from functools import partial

    import numpy as np

    from netfit import data as datasets
    from netfit import models
    from netfit.analog import Trainer
    from netfit.seeding import derive

    from ._network import open_network

    train, test = datasets.load(data), datasets.load(data, "test")
    saved = Path(model).is_dir()
    network = open_network(model, None if saved else train.shape, None if saved else len(train.classes), original)
    if network.shape != train.shape:
        raise ConfigError(f"{model} takes inputs of shape {network.shape}, {data} has {train.shape}")

    def some(of: Any, n: int | None, name: str) -> Any:
        order = np.random.default_rng(derive(seed, "samples", name)).permutation(len(of))
        return of.tensors(None if n is None or n >= len(of) else order[:n])

    build = partial(models.build, network.spec, num_classes=network.num_classes, in_shape=network.shape)
    trainer = Trainer(build, some(train, samples, "train"), epochs=epochs, lr=lr)
    return network, trainer, some(test, test_samples, "test")


def _noise(word: str, std: float = 1.0) -> Any:
    from netfit import analog

    if word == "mixed":
        return analog.MixedGaussian.from_amplitude(std, 0.5)
    return {"additive": analog.AdditiveGaussian, "multiplicative": analog.MultiplicativeGaussian}[word](std)


def _numbers(option: str, text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < value < float("inf") for value in found):
        raise ConfigError(f"{option} {text!r}: allowed are positive numbers, such as 0.1,0.3,1")
    return found


def _outcome(place: Path, as_json: bool, facts: Mapping[str, Any], text: str) -> Output:
    write_page(place)
    return answer(as_json, {"run": place, **facts}, f"{text}\nreport: {place / 'report.html'}")


def _level(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{'> ' if found['censored'] else ''}{found['std']:.3g}"


def _walk_text(facts: Mapping[str, Any]) -> str:
    rows = [(s["site"], str(s["call"]), _level(s["midpoint"]), _level(s["trained"])) for s in facts["sites"]]
    text = table(("site", "call", "midpoint", "trained under it"), rows)
    text += f"\nweakest site: {facts['weakest']}; at all sites at once: {_level(facts['everywhere'])}"
    return text + ("" if facts["predicted"] is None else f", predicted from the sites {facts['predicted']:.3g}")


def _harden_text(facts: Mapping[str, Any]) -> str:
    names = dict.fromkeys([facts["method"], *facts["baselines"]])
    words = {"clean": "clean training", facts["baselines"][2]: f"best constant noise ({facts['best_fixed']})"}
    rows = []
    for name in names:
        r, curve = facts["robustness"][name], facts["curves"][name]
        rows.append((words.get(name, name), f"{r['mean']:.3f}", f"{r['worst']:.3f}", *(f"{a:.4f}" for a in curve)))
    text = table(("training", "robustness", "worst", *(f"at {level:g}" for level in facts["levels"])), rows)
    return text + f"\nmean noise in training: {facts['mean_std']:.3g} of {facts['std']:g} nominal"
