"""``netfit analog order|program``: a trained network on an analog array, or on chips of resistive memory."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from netfit.errors import ConfigError

from ._analog import Data, Epochs, Judged, Positive, Rate, RunDir, Samples, _outcome, _subject
from ._options import Count, Json, Model, Original, Seed
from ._output import Output, table

if TYPE_CHECKING:
    from torch import nn

    from netfit.runs import Run

__all__ = ["order", "program"]

CALIBRATION = 512  # training samples that set ranges, probe drift and choose the order
Spread = Annotated[float, Parameter(validator=Number(gte=0))]
Share = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]


def order(
    model: Model,
    /,
    *,
    data: Data,
    rows: Annotated[Count, Parameter(help="Operands of one tile of the array.")] = 128,
    gain: Annotated[
        Positive | None, Parameter(help="Units of the sum for the product of two codes; calibrated by default.")
    ] = None,
    overdrive: Annotated[Positive, Parameter(help="Times the calibrated gain: above 1 more sums saturate.")] = 1.0,
    noise_std: Annotated[Spread, Parameter(help="Noise of a sum, in steps of the 8-bit converter.")] = 2.0,
    leak: Annotated[float, Parameter(help="Share of a sum left after one step.", validator=Number(gt=0, lte=1))] = 1.0,
    random_orders: Annotated[Count, Parameter(help="Random orders to compare with.")] = 5,
    epochs: Epochs = 10,
    lr: Rate = 1e-3,
    samples: Samples = None,
    test_samples: Judged = 2000,
    original: Original = None,
    run: RunDir = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Score a network on a saturating array in several orders of its rows."""
    if gain is not None and overdrive != 1:
        raise ConfigError(f"--overdrive {overdrive:g} multiplies the calibrated gain, and --gain {gain:g} replaces it")
    from netfit.analog.mac import SaturatingMAC, compare_orders
    from netfit.io import write_json
    from netfit.runs import Run

    mac = SaturatingMAC(rows=rows, gain=gain, overdrive=overdrive, noise_std=noise_std, leak=leak)
    training = {"data": data, "epochs": epochs, "lr": lr, "samples": samples, "test_samples": test_samples}
    network, trainer, judged = _subject(model, data, original, epochs, lr, samples, test_samples, seed)
    arguments = {"model": model, **training, "mac": mac.settings(), "random_orders": random_orders}
    with Run.open(run, "analog-order", arguments, seed) as opened:
        print(f"run directory: {opened.path}", file=sys.stderr)
        trained = _trained(model, network.model, trainer, opened, seed)
        found = compare_orders(trained, mac, trainer.data[0][:CALIBRATION], judged, random_orders, seed).to_dict()
        write_json(opened.path / "orders.json", found.pop("orders"))
        facts = {"kind": "analog-hardware", "task": "order", "mac": mac.settings(), "judged": len(judged[1]), **found}
        opened.write_result(facts)
    return _outcome(opened.path, as_json, facts, _order_text(facts))


def program(
    model: Model,
    /,
    *,
    data: Data,
    device: Annotated[
        str, Parameter(help="Memory cell: nandakumar2019 (PCM), wan2022, milo2021, ideal, or LAW:STD.")
    ] = ("nandakumar2019"),
    mapping: Annotated[Literal["differential", "offset"], Parameter(help="Two cells a weight, or one.")] = (
        "differential"
    ),
    per: Annotated[Literal["tensor", "column"], Parameter(help="Whose largest weight takes the whole range.")] = (
        "tensor"
    ),
    dac_bits: Annotated[Count | None, Parameter(help="Bits of the inputs; not rounded by default.")] = None,
    adc_bits: Annotated[Count | None, Parameter(help="Bits of a tile's results; not rounded by default.")] = None,
    rows: Annotated[Count, Parameter(help="Operands of one tile, where results are converted.")] = 256,
    stuck_off: Annotated[Share, Parameter(help="Share of cells stuck at the smallest conductance.")] = 0.0,
    stuck_on: Annotated[Share, Parameter(help="Share of cells stuck at the largest one.")] = 0.0,
    read_std: Annotated[Spread, Parameter(help="Noise of a cell at each read, of the largest conductance.")] = 0.0,
    times: Annotated[str | None, Parameter(help="Seconds after programming, by commas; 0, an hour, a day.")] = None,
    chips: Annotated[Count, Parameter(help="Chips to program.")] = 3,
    epochs: Epochs = 10,
    lr: Rate = 1e-3,
    samples: Samples = None,
    test_samples: Judged = 2000,
    original: Original = None,
    run: RunDir = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Program a network onto chips of resistive memory and score it as they age."""
    from netfit.analog.crossbar import Crossbar, over_time
    from netfit.runs import Run

    crossbar = Crossbar(
        device, mapping, per, dac_bits, adc_bits, None, rows, stuck_off, stuck_on, read_std, seed=seed
    )  # fmt: skip
    moments = (
        _times(times) if times is not None else [0.0, 86_400.0] if device == "wan2022" else [0.0, 3600.0, 86_400.0]
    )
    training = {"data": data, "epochs": epochs, "lr": lr, "samples": samples, "test_samples": test_samples}
    network, trainer, judged = _subject(model, data, original, epochs, lr, samples, test_samples, seed)
    arguments = {"model": model, **training, "crossbar": crossbar.settings(), "times": moments, "chips": chips}
    with Run.open(run, "analog-program", arguments, seed) as opened:
        print(f"run directory: {opened.path}", file=sys.stderr)
        trained = _trained(model, network.model, trainer, opened, seed)
        found = over_time(
            trained, crossbar, trainer.data[0][:CALIBRATION], judged, moments, chips,
            progress=lambda done, total: print(f"score: {done}/{total}", file=sys.stderr, flush=True),
        )  # fmt: skip
        facts = {
            "kind": "analog-hardware", "task": "program", "crossbar": {"device": device, **crossbar.settings()},
            "judged": len(judged[1]), **found.to_dict(),
        }  # fmt: skip
        opened.write_result(facts)
    return _outcome(opened.path, as_json, facts, _program_text(facts))


def _trained(model: str, network: "nn.Module", trainer: Any, run: "Run", seed: int) -> "nn.Module":
    """A saved network as it is; any other one trained, from its last checkpoint when the run is resumed."""
    if Path(model).is_dir():
        return network
    trained: nn.Module = trainer(None, seed=seed, checkpoint=run.path / "training")
    return trained


def _times(text: str) -> list[float]:
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 <= t < float("inf") for t in found):
        raise ConfigError(f"--times {text!r}: allowed are seconds from 0 on, such as 0,3600,86400")
    return found


def _order_text(facts: Mapping[str, Any]) -> str:
    random = sorted(facts["random"])
    rows = [
        ("digital", f"{facts['digital']:.4f}"),
        ("array that saturates at the end only", f"{facts['unordered']:.4f}"),
        ("array, rows as they stand", f"{facts['natural']:.4f}"),
        ("array, random orders", f"{random[0]:.4f} to {random[-1]:.4f}, median {_median(random):.4f}"),
        ("array, balanced order", f"{facts['balanced']:.4f}"),
    ]
    return table(("sums", "accuracy"), rows) + "\nbalanced orders: orders.json"


def _program_text(facts: Mapping[str, Any]) -> str:
    rows = [
        (f"{t:g}", *(f"{sum(of) / len(of):.4f} ({min(of):.4f} to {max(of):.4f})" for of in columns))
        for t, *columns in zip(
            facts["times"], zip(*facts["plain"], strict=True), zip(*facts["compensated"], strict=True), strict=True
        )
    ]
    text = table(("seconds", "accuracy", "drift compensated"), rows)
    return f"{text}\nwithout crossbars {facts['digital']:.4f}; mean of {len(facts['plain'])} chips"


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return (ordered[half] + ordered[-half - 1]) / 2
