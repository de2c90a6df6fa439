"""The order of the sections, the title and the verdict."""

from typing import Any

from .._format import digits
from .._model import Report
from ._layers import layers, sensitivity
from ._method import measurement, reproduce
from ._outcome import accuracy_drop, outcome
from ._rivals import peers, specialisation
from ._schema import CompressResult
from ._search import retraining, search
from ._why import why

__all__ = ["compress_report"]

_PARTS = (outcome, layers, why, search, peers, specialisation, retraining, sensitivity, measurement, reproduce)


def compress_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``; sections without data are left out.

    Raises:
        pydantic.ValidationError: a value has the wrong type.
    """
    r = CompressResult.model_validate(result)
    sections = tuple(section for part in _PARTS if (section := part(r)).blocks)
    title = f"{r.model or 'A network'} compressed" + (f" for {r.data}" if r.data else "")
    return Report(title, _verdict(r), sections)


def _verdict(r: CompressResult) -> str:
    said = []
    if r.final.ratio:
        said.append(f"runs {digits(1 / r.final.ratio)} times as fast as the original")
    if (drop := accuracy_drop(r)) is not None:
        points = f"{100 * abs(drop):.2f}"
        word = "lost" if drop > 0 else "gained"
        said.append("no accuracy lost" if points == "0.00" else f"{points} points of accuracy {word}")
    sentences = [", ".join(said).capitalize() + "."] if said else []
    if r.final.met is not None:
        sentences.append("The goal is met." if r.final.met else "The goal is not met.")
    return " ".join(sentences)
