"""Why is it not faster: where the time goes, which layers are slow, which channel counts pay."""

from .._format import digits, each, percent, seconds
from .._model import Block, Section, Table
from ._schema import CompressResult

__all__ = ["why"]

_PARTS = {
    "layers": "layers with weights",
    "conversions": "conversions of layout or precision",
    "other": "everything else",
}


def why(r: CompressResult) -> Section:
    """Shares of the time, layers far from the best rate with the reason, and the staircase of channel counts."""
    if r.why is None:
        return Section("Why not faster?")
    blocks: list[Block] = []
    if r.why.share:
        names = {
            "layers": "layers with weights",
            "conversions": "conversions of layout or precision",
            "other": "others",
        }
        rows = tuple((names.get(k, k), each(percent, v)) for k, v in r.why.share.items())
        blocks.append(Table(("", "share of the time"), rows, "lr", "Where the time of the deployed file goes"))
    if r.why.layers:
        cells = tuple((x.name, each(seconds, x.time_s), each(percent, x.rate), x.reason) for x in r.why.layers)
        note = "Layers at less than half of the rate (multiply–adds a second) of the best layer of their precision"
        blocks.append(Table(("layer", "time", "rate", "why"), cells, "lrrl", note))
    if r.why.steps:
        steps = tuple((s.group, str(s.channels), ", ".join(map(str, s.useful))) for s in r.why.steps)
        note = "Channel counts the search could choose from: on a measured target, those that no larger one beats"
        blocks.append(Table(("group", "channels", "counts that pay"), steps, "lrl", note))
    if (p := r.predictor) is not None and p.guessed:
        facts = (
            ("candidates not measured because they were hopeless", str(p.skipped)),
            ("guesses made before a measurement", str(p.guessed)),
            ("mean error of these guesses", each(percent, p.mape)),
            ("rank correlation with the measurements", each(digits, p.spearman)),
        )
        blocks.append(Table(("", ""), facts, "lr", "The latency predictor of the search"))
    return Section("Why not faster?", "", tuple(blocks))
