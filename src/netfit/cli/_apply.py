"""``netfit apply``: a network and a policy file in, a saved network out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ._options import AnyPolicy, Classes, InShape, Json, Model, Original, Seed, shape
from ._output import Output, answer, si, table

if TYPE_CHECKING:
    import torch
    from torch import nn

    from netfit.data import Dataset
    from netfit.surgery import Policy

__all__ = ["apply"]

CALIBRATION, CALIBRATION_BATCH = 768, 256


def apply(
    model: Model,
    policy: AnyPolicy,
    /,
    *,
    in_shape: InShape = None,
    num_classes: Classes = None,
    original: Original = None,
    data: Annotated[str | None, Parameter(help="Data set that sets the ranges of quantized activations.")] = None,
    out: Annotated[Path | None, Parameter(help="Folder to write; named after model and policy by default.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Change a network by a policy file and save it."""
    size = shape(in_shape)
    from netfit import data as datasets
    from netfit import surgery
    from netfit.errors import ConfigError
    from netfit.seeding import seed_everything

    from ._network import open_network, operators, read_policy, stored_bytes

    samples = None if data is None else datasets.load(data)
    seed_everything(seed)
    if samples is not None and not Path(model).is_dir():
        size, num_classes = size or samples.shape, num_classes or len(samples.classes)
    network = open_network(model, size, num_classes, original)
    if network.policy:
        raise ConfigError(
            f"{model} was already changed by a policy; write both into one and apply it to {network.spec}"
        )
    x = network.inputs()
    changes = read_policy(policy, network.model, x)
    changed = surgery.apply(network.model, changes, x).eval()
    if samples is not None:
        _refresh(changed, changes, samples)
    place = out or Path(f"{_stem(model)}-{Path(policy.replace('#', '-')).stem}")
    exported, why_not = _exported(changed, x, samples is not None)
    surgery.save(
        changed, place, spec=network.spec, example_inputs=[x], policy=changes, num_classes=network.num_classes,
        files={"model.onnx": exported} if exported else None,
    )  # fmt: skip
    facts = []
    for net in (network.model, changed):
        workload = operators(net, x)
        totals = workload.totals()
        facts.append({"macs": totals["macs"], "params": totals["params"], "bytes": stored_bytes(net, workload)})
    before, after = facts
    result = {
        "model": model,
        "policy": policy,
        "before": before,
        "after": after,
        "path": place,
        "not_exported": why_not,
    }
    return answer(as_json, result, _text(before, after, place, why_not))


def _refresh(model: "nn.Module", policy: "Policy", samples: "Dataset") -> None:
    """What a changed network must learn from data without training: statistics and ranges."""
    from netfit.surgery import calibrate
    from netfit.train import recalibrate

    inputs, _ = samples.tensors(range(min(CALIBRATION, len(samples))))
    if any(t.name == "prune" for techniques in policy.values() for t in techniques):
        recalibrate(model, inputs)
    calibrate(model, inputs.split(CALIBRATION_BATCH))


def _exported(model: "nn.Module", x: "torch.Tensor", calibrated: bool) -> tuple[bytes | None, str | None]:
    """The bytes of model.onnx, or why there are none: the saved weights are worth keeping either way."""
    import tempfile

    from netfit.deploy import export
    from netfit.errors import MissingExtraError, UnsupportedLayerError
    from netfit.surgery import Quantization

    if Quantization.of(model) is not None and not calibrated:
        return None, "it is quantized, and --data must set the ranges first"
    with tempfile.TemporaryDirectory() as folder:
        try:
            return export(model, [x], Path(folder) / "model.onnx").path.read_bytes(), None
        except (MissingExtraError, UnsupportedLayerError) as e:
            return None, str(e)


def _stem(model: str) -> str:
    """A name for files: the factory of ``package.module:factory``, the folder of a saved network."""
    return Path(model.rpartition(":")[2]).name


def _text(before: dict[str, Any], after: dict[str, Any], place: Path, why_not: str | None) -> str:
    labels = (("MACs", "macs", ""), ("parameters", "params", ""), ("weights", "bytes", "B"))
    rows = [
        (label, si(before[key], unit), si(after[key], unit), f"{after[key] / before[key]:.3f}" if before[key] else "")
        for label, key, unit in labels
    ]
    end = f"saved in {place}" + (f" without model.onnx: {why_not}" if why_not else ", with model.onnx")
    return table(("", "before", "after", "ratio"), rows) + f"\n{end}"
