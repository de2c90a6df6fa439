"""``netfit data``: which data sets there are, and what one of them holds."""

from typing import Annotated

from cyclopts import Parameter

from ._options import Json
from ._output import Output, answer

__all__ = ["fetch", "names"]


def names(*, as_json: Json = False) -> Output:
    """Names of all data sets that --data takes."""
    from netfit import data

    return answer(as_json, {"names": data.names()}, "\n".join(data.names()))


def fetch(name: Annotated[str, Parameter(help="One of netfit data list.")], /, *, as_json: Json = False) -> Output:
    """Find a data set on disk or download it, check it, and say what it holds."""
    from netfit import data

    splits = {split: data.load(name, split) for split in ("train", "test")}
    one = splits["train"]
    samples = {split: len(d) for split, d in splits.items()}
    facts = {
        "name": name,
        "samples": samples,
        "shape": one.shape,
        "classes": one.classes,
        "licence": one.licence,
        "source": one.source,
    }
    counts = ", ".join(f"{n} {split}" for split, n in samples.items())
    shape = "x".join(map(str, one.shape))
    text = f"{name}: {counts}; inputs {shape}, {len(one.classes)} classes\nlicence: {one.licence}\nsource: {one.source}"
    return answer(as_json, facts, text)
