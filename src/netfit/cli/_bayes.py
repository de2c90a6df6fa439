"""``netfit bayes fit|convert|calibrate|pfp|quantize``: Bayesian networks and one probabilistic pass through them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from netfit.errors import ConfigError

from ._options import Count, Json, Seed
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from torch import Tensor

    from netfit.bayes import PFP
    from netfit.surgery import Policy

__all__ = ["calibrate", "convert", "fit", "open_saved", "pfp", "quantize", "rewritten", "some"]

Saved = Annotated[Path, Parameter(help="Folder of a Bayesian network, as fit, convert and quantize leave it.")]
Data = Annotated[str, Parameter(help="Data set; see netfit data list.")]
RunDir = Annotated[Path | None, Parameter(help="Run directory, new or to go on with; runs/... by default.")]
Samples = Annotated[Count | None, Parameter(help="Training samples to use; all by default.")]
Positive = Annotated[float, Parameter(validator=Number(gt=0))]


def fit(
    model: Annotated[str, Parameter(help="Built-in name, factory, or the folder of a trained network.")],
    /,
    *,
    data: Data,
    epochs: Annotated[Count, Parameter(help="Passes of variational training.")] = 10,
    pretrain: Annotated[int, Parameter(help="Passes of plain training before it, for a new network.")] = 3,
    lr: Annotated[Positive, Parameter(help="Highest learning rate, of Adam.")] = 2e-3,
    prior_std: Annotated[Positive, Parameter(help="Standard deviation of the weights' prior.")] = 1.0,
    init_std: Annotated[Positive, Parameter(help="Standard deviation the weights begin with.")] = 0.05,
    kl_weight: Annotated[
        float, Parameter(help="Weight of the divergence from the prior.", validator=Number(gte=0))
    ] = 1.0,
    patience: Annotated[Count | None, Parameter(help="Stop after so many passes without a better accuracy.")] = None,
    samples: Samples = None,
    run: RunDir = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Train a network with Gaussian weights."""
    from netfit.bayes import Bayesian, fit_svi
    from netfit.runs import Run
    from netfit.surgery import Policy, apply
    from netfit.train import evaluate, fit

    from ._network import open_network

    train, test = some(data, "train", samples, seed), some(data, "test", 2000, seed)
    saved = Path(model).is_dir()
    shape, classes = tuple(train[0].shape[1:]), int(train[1].max()) + 1
    arguments = {"model": model, "data": data, "epochs": epochs, "pretrain": pretrain, "lr": lr, "prior_std": prior_std,
                 "init_std": init_std, "kl_weight": kl_weight, "patience": patience, "samples": samples}  # fmt: skip
    with Run.open(run, "bayes-fit", arguments, seed) as opened:
        network = _seeded(lambda: open_network(model, None if saved else shape, None if saved else classes), seed)
        settings: dict[str, Any] = {"batch_size": 100, "seed": seed}
        if pretrain and not saved:
            fit(network.model, train, epochs=pretrain, lr=lr, weight_decay=1e-4, optimizer="adam", precision="fp32",
                checkpoint=opened.path / "plain", progress=_progress("plain training"), **settings)  # fmt: skip
        policy = Policy({"*": Bayesian(prior_std, init_std)})
        bayesian = apply(network.model, policy, train[0][:2])
        history = fit_svi(
            bayesian, train, epochs=epochs, lr=lr, kl_weight=kl_weight, validation=test, patience=patience,
            checkpoint=opened.path / "svi", progress=_progress("variational training"), **settings,
        )  # fmt: skip
        save(opened.path / "model", bayesian, policy, network.spec, network.num_classes, shape, {})
        accuracy = evaluate(bayesian, *test)
        facts = {"kind": "bayes-fit", "model": model, "data": data, "accuracy": accuracy, "loss": list(history.loss),
                 "validation": list(history.validation)}  # fmt: skip
        opened.write_result(facts)
    write_page(opened.path)
    text = f"accuracy of the means {100 * accuracy:.2f} % after {len(history.loss)} passes\n"
    return answer(as_json, {"run": opened.path, **facts}, text + f"network: {opened.path / 'model'}")


def convert(
    guide: Annotated[Path, Parameter(help="Parameter store of a Pyro guide (.pt); nothing in it is run.")],
    /,
    *,
    model: Annotated[str, Parameter(help="Built-in name or factory of the network it belongs to.")],
    out: Annotated[Path, Parameter(help="Folder to write.")],
    variance_scale: Annotated[Positive, Parameter(help="Factor for every variance.")] = 1.0,
    as_json: Json = False,
) -> Output:
    """Turn a posterior trained with Pyro into a saved Bayesian network."""
    from netfit.bayes import Bayesian, load_posterior, load_pyro_guide
    from netfit.surgery import Policy, apply

    from ._network import open_network

    state = load_pyro_guide(guide)
    network = open_network(model)
    policy = Policy({"*": Bayesian()})
    bayesian = load_posterior(apply(network.model, policy, network.inputs(2)), state, variance_scale)
    save(out, bayesian, policy, network.spec, network.num_classes, network.shape, {})
    numbers = sum(g.mean.numel() for g in state.values())
    return answer(as_json, {"out": out, "weights": numbers}, f"{numbers} weights with variances: {out}")


def calibrate(
    saved: Saved,
    /,
    *,
    data: Data,
    test_samples: Annotated[Count, Parameter(help="Inputs to compare on.")] = 32,
    draws: Annotated[Count, Parameter(help="Networks to draw, at least 20.")] = 200,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Compare one pass with sampling, layer by layer, choose the pooling rules, and keep them with the network."""
    from dataclasses import asdict

    from netfit.bayes import calibrate_pfp
    from netfit.io import read_artifact, write_artifact

    network = rewritten(saved)
    report = calibrate_pfp(network, some(data, "test", test_samples, seed)[0], samples=draws, seed=seed)
    artifact = read_artifact(saved)
    artifact.meta["notes"] = artifact.meta.get("notes", {}) | {"pfp": network.settings()}
    write_artifact(saved, artifact.meta, artifact.tensors, artifact.files)
    rows = [(p.site, p.kind, p.setting, f"{p.std_ratio:.3f}", f"{p.mean_error:.3f}", "" if p.good else "off")
            for p in report.places]  # fmt: skip
    columns = ("site", "operator", "setting", "std / sampled", "mean error", "")
    text = table(columns, rows) + f"\n{len(report.failing())} of {len(rows)} places are off by more than a tenth"
    return answer(as_json, {"saved": saved, "places": [asdict(p) for p in report.places]}, text)


def pfp(
    saved: Saved,
    /,
    *,
    backend: Annotated[
        str, Parameter(help="auto times all of eager, inductor, native and onnx; or some of them, comma-separated.")
    ] = "eager,native,onnx",
    batch: Annotated[Count, Parameter(help="Inputs a call.")] = 1,
    out: Annotated[Path | None, Parameter(help="ONNX file to write.")] = None,
    draws: Annotated[int, Parameter(help="Let the file draw so many logits and return the uncertainties too.")] = 0,
    head_cov: Annotated[
        Literal["full", "diag"], Parameter(help="Covariance of the logits, or variances only.")
    ] = "full",
    as_json: Json = False,
) -> Output:
    """Turn a Bayesian network into one probabilistic pass: time its backends, write it as ONNX."""
    network = rewritten(saved, head_cov)
    names = ["eager", "inductor", "native", "onnx"] if backend == "auto" else [b.strip() for b in backend.split(",")]
    compiled: Any = network.compile(names, batch)
    if out is not None:
        network.export(out, samples=draws)
    facts = {"saved": saved, "batch": batch, "backend": compiled.backend, "seconds": compiled.seconds, "out": out}
    rows = [(name, si(s, "s"), "fastest" if name == compiled.backend else "") for name, s in compiled.seconds.items()]
    text = table(("backend", "CPU time of a call", ""), rows) if rows else compiled.backend
    return answer(as_json, facts, text + (f"\n{out}" if out else ""))


def quantize(
    saved: Saved,
    /,
    *,
    data: Data,
    mode: Annotated[
        Literal["VPQ", "SPQ", "JQ"], Parameter(help="Round the stored weights, the drawn ones, or both.")
    ] = "JQ",
    bits: Annotated[str, Parameter(help="Bits of a mean, a standard deviation and a drawn weight.")] = "4,4,4",
    octaves: Annotated[
        Positive, Parameter(help="Reach of the standard deviations' grid, in halvings of its top.")
    ] = 8.0,
    epochs: Annotated[int, Parameter(help="Passes of training through the rounding.", validator=Number(gte=0))] = 3,
    lr: Annotated[Positive, Parameter(help="Highest learning rate, of Adam.")] = 1e-3,
    kl_weight: Annotated[
        float, Parameter(help="Weight of the divergence from the prior.", validator=Number(gte=0))
    ] = 1.0,
    samples: Samples = None,
    run: RunDir = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Round a Bayesian network to a few bits, train it on, and pack it."""
    from netfit.bayes import fit_svi
    from netfit.bayes.quantized import QuantizeBayes, memory_report, quantize_bayes, save_packed
    from netfit.runs import Run
    from netfit.surgery import Policy
    from netfit.train import evaluate

    mu, sigma, weight = _bits(bits)
    technique = QuantizeBayes(mode, mu, sigma, weight, octaves)
    loaded = open_saved(saved)
    train, test = some(data, "train", samples, seed), some(data, "test", 2000, seed)
    arguments = {"saved": str(saved), "data": data, "mode": mode, "bits": bits, "octaves": octaves, "epochs": epochs,
                 "lr": lr, "kl_weight": kl_weight, "samples": samples}  # fmt: skip
    with Run.open(run, "bayes-quantize", arguments, seed) as opened:
        before = evaluate(loaded.model, *test)
        small = quantize_bayes(loaded.model, train[0][:2], policy=Policy({"*": technique}))
        if epochs:
            fit_svi(small, train, epochs=epochs, lr=lr, kl_weight=kl_weight, kl_warmup=0.0, seed=seed,
                    checkpoint=opened.path / "svi", progress=_progress("training through the rounding"))  # fmt: skip
        policy = Policy({p: [*t, technique] for p, t in loaded.policy.items()})
        save(opened.path / "model", small, policy, loaded.meta["spec"], loaded.meta["num_classes"],
             tuple(loaded.example_inputs[0].shape[1:]), loaded.meta.get("notes", {}))  # fmt: skip
        rows, after = memory_report(small), evaluate(small, *test)
        packed = None if mode == "SPQ" else save_packed(small, opened.path / "packed")
        facts = {"kind": "bayes-quantize", "saved": str(saved), "mode": mode, "bits": bits, "before": before,
                 "accuracy": after, "packed_bytes": packed, "memory": rows}  # fmt: skip
        opened.write_result(facts)
    write_page(opened.path)
    size = "" if packed is None else f", {packed} bytes on disk: {opened.path / 'packed'}"
    text = f"accuracy of the means {100 * before:.2f} % -> {100 * after:.2f} %{size}"
    return answer(as_json, {"run": opened.path, **facts}, text)


def _bits(text: str) -> tuple[int, int, int]:
    """Read ``4,4,4`` or ``4``.

    >>> _bits("4,3,2"), _bits("8")
    ((4, 3, 2), (8, 8, 8))
    """
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(p.strip().isdecimal() for p in parts):
        raise ConfigError(f"--bits {text!r}: give one number, or three for mean, standard deviation and drawn weight")
    numbers = [int(p) for p in parts] * (3 if len(parts) == 1 else 1)
    return numbers[0], numbers[1], numbers[2]


def open_saved(folder: Path) -> Any:
    """A saved Bayesian network."""
    from netfit import surgery
    from netfit.bayes.svi import bayes_layers

    if not folder.is_dir():
        raise ConfigError(f"{folder} is no saved network: make one with netfit bayes fit or convert")
    loaded = surgery.load(folder)
    if not bayes_layers(loaded.model):
        raise ConfigError(f"{folder} holds a network without Bayesian layers: make one with netfit bayes fit")
    return loaded


def rewritten(folder: Path, head_cov: Literal["full", "diag"] = "full") -> "PFP":
    """One pass through a saved network, with the rules that calibration left."""
    from netfit.bayes import to_pfp

    loaded = open_saved(folder)
    network = to_pfp(loaded.model, loaded.example_inputs[0], head_cov=head_cov)
    network.use(loaded.meta.get("notes", {}).get("pfp", {}))
    return network


def save(
    folder: Path, model: Any, policy: "Policy", spec: str, classes: int | None, shape: tuple[int, ...],
    notes: Mapping[str, Any],
) -> None:  # fmt: skip
    """Keep a Bayesian network as every network is kept: by its policy."""
    import torch

    from netfit import surgery

    surgery.save(
        model,
        folder,
        spec=spec,
        example_inputs=[torch.zeros(2, *shape)],
        policy=policy,
        num_classes=classes,
        notes=notes,
    )


def some(name: str, split: str, n: int | None, seed: int) -> "tuple[Tensor, Tensor]":
    """Up to n samples of a data set, drawn without order."""
    import numpy as np

    from netfit.data import load
    from netfit.seeding import derive

    found = load(name, split)
    order = np.random.default_rng(derive(seed, "samples", split)).permutation(len(found))
    return found.tensors(None if n is None or n >= len(found) else order[:n])


def _seeded(make: Any, seed: int) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _progress(stage: str) -> Any:
    from ._progress import Lines, Step

    lines = Lines(Step(0.0), sys.stderr)
    return lambda facts: lines(stage, facts)
