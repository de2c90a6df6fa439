"""The page of `netfit bayes evaluate`: is the network right, does it know when not, and what is it least sure of?"""

import base64
import io
from typing import Any

from pydantic import BaseModel, ConfigDict

from netfit.errors import require

from . import plots
from ._blocks import figure
from ._format import count, digits, percent
from ._model import Block, Facts, Figure, Report, Section, Table

__all__ = ["bayes_report"]

_ROLES = {"in": "its own data", "ambiguous": "ambiguous", "ood": "foreign"}
_COLUMNS = 6  # thumbnails side by side


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Unsure(_Part):
    """One image the network is not sure of; pixels (channels, height, width), 0 to 255."""

    pixels: tuple[tuple[tuple[int, ...], ...], ...]
    label: int
    prediction: int
    total: float
    epistemic: float


class BayesResult(_Part):
    """The whole file."""

    network: str
    method: str
    draws: int
    sets: dict[str, str]
    images: int
    scores: dict[str, float | None]
    means: dict[str, dict[str, float]]
    separation: dict[str, float]
    reliability: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    risk: tuple[tuple[float, ...], tuple[float, ...]]
    epistemic: dict[str, tuple[float, ...]]
    unsure: tuple[Unsure, ...] = ()


def bayes_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = BayesResult.model_validate(result)
    verdict = f"{percent(r.scores['acc'] or 0)} right"
    if (auroc := r.separation.get("ood_auroc_epistemic")) is not None:
        verdict += f"; foreign images found with an AUROC of {auroc:.3f}"
    sections = (_right(r), _knows(r), _least_sure(r))
    return Report(f"Uncertainty of {r.network}", verdict + ".", tuple(s for s in sections if s.blocks))


def _right(r: BayesResult) -> Section:
    """Accuracy, calibration and risk on the network's own data."""
    s = {name: value if value is not None else float("nan") for name, value in r.scores.items()}
    facts = Facts({"Accuracy": percent(s["acc"]), "NLL": (digits(s["nll"]), "nats"), "Brier": digits(s["brier"]),
                   "Calibration error": (percent(s["ece15"]), "15 bins"), "E-AURC": digits(s["eaurc"])})  # fmt: skip
    confidence, accuracy, _ = r.reliability
    ends = ([0.0, 1.0], [0.0, 1.0])

    def calibration() -> str:
        series = {"measured": (confidence, accuracy), "ideal": ends}
        return plots.lines(series, xlabel="confidence", ylabel="accuracy")

    def risk() -> str:
        return plots.lines({"error": r.risk}, xlabel="share of images answered", ylabel="error among them")

    at = {share: next(e for c, e in zip(*r.risk, strict=True) if c >= share) for share in (0.5, 0.8, 0.9, 1.0)}
    rows = tuple((percent(share), percent(error)) for share, error in at.items())
    blocks: tuple[Block, ...] = (
        facts,
        figure(
            "Reliability: accuracy where the network is so sure",
            "Accuracy over confidence with the diagonal.",
            calibration,
        ),
        figure("Risk: error when the least sure are left out", "Error over the share of images answered.", risk),
        Table(("answered", "wrong of them"), rows, "rr", note="Abstaining from the least sure"),
    )
    text = f"{count(r.images)} test images of {r.sets['in']}, {r.draws} draws, method {r.method}."
    return Section("Is it right?", text, blocks)


def _knows(r: BayesResult) -> Section:
    """Uncertainties of the data sets, and how well they tell them apart."""
    names = {role: f"{_ROLES[role]}: {name}" for role, name in r.sets.items()}
    columns = ("data", "total", "aleatoric", "epistemic", "logit variance")
    rows = tuple((names[role], *(digits(m[k]) for k in ("total", "aleatoric", "epistemic", "var")))
                 for role, m in r.means.items())  # fmt: skip
    blocks: list[Block] = [Table(columns, rows, "lrrrr", note="Mean uncertainty in nats")]
    if len(r.epistemic) > 1:

        def spread() -> str:
            shares = [
                i / (len(next(iter(r.epistemic.values()))) - 1) for i in range(len(next(iter(r.epistemic.values()))))
            ]
            series = {r.sets[role]: (list(values), shares) for role, values in r.epistemic.items()}
            return plots.lines(series, xlabel="epistemic uncertainty, nats", ylabel="share of images below")

        blocks.append(
            figure("Epistemic uncertainty by data set", "Cumulative shares of images over uncertainty.", spread)
        )
    if r.separation:
        words = {"ood_auroc": "foreign images, by", "ambiguous_auroc": "ambiguous images, by"}
        found = tuple(
            (f"{words[n.rpartition('_')[0]]} {n.rpartition('_')[2]}", f"{v:.4f}") for n, v in r.separation.items()
        )
        blocks.append(Table(("told apart", "AUROC"), found, "lr"))
    return Section("Does it know when it is wrong?", blocks=tuple(blocks))


def _least_sure(r: BayesResult) -> Section:
    if not r.unsure:
        return Section("What it is least sure of")
    shown = Figure(
        _thumbnails(r.unsure), "label, prediction and total uncertainty of each", "Small images with their labels."
    )
    return Section("What it is least sure of", blocks=(shown,))


def _thumbnails(images: tuple[Unsure, ...]) -> str:
    """Pictures in a grid, as one SVG; only numbers of the result get into it."""
    side, text = 60, 30
    rows = -(-len(images) // _COLUMNS)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_COLUMNS * 66} {rows * (side + text)}">']
    for i, image in enumerate(images):
        x, y = i % _COLUMNS * 66 + 3, i // _COLUMNS * (side + text)
        words = f"{image.label} &#8594; {image.prediction}, {image.total:.2f}"
        parts.append(
            f'<image x="{x}" y="{y}" width="{side}" height="{side}" style="image-rendering: pixelated" '
            f'href="data:image/png;base64,{_png(image)}"/>'
            f'<text x="{x}" y="{y + side + 14}" font-size="11" fill="currentColor">{words}</text>'
        )
    return "".join(parts) + "</svg>"


def _png(image: Unsure) -> str:
    pillow = require("PIL.Image", "report")
    channels = [bytes(min(max(v, 0), 255) for row in plane for v in row) for plane in image.pixels]
    size = len(image.pixels[0][0]), len(image.pixels[0])
    planes = [pillow.frombytes("L", size, data) for data in channels]
    picture = planes[0] if len(planes) == 1 else pillow.merge("RGB", planes[:3])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
