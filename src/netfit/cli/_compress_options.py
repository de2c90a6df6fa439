"""The options of ``netfit compress``, with what each of them says in the help."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from ._options import Count

__all__ = [
    "AllowDrift",
    "Also",
    "Data",
    "Epochs",
    "Family",
    "Finalists",
    "Ignore",
    "Latency",
    "MaxDrop",
    "Methods",
    "Ray",
    "Retrained",
    "RunFolder",
    "Sampler",
    "Store",
    "TargetName",
    "TrainEpochs",
    "Trials",
]

Data = Annotated[str, Parameter(help="Data set to train and judge on; see netfit data list.")]
Latency = Annotated[
    float | None,
    Parameter(
        help="Goal: part of the uncompressed latency; needed but for a family without one.",
        validator=Number(gt=0, lte=1),
    ),
]
TargetName = Annotated[
    str, Parameter(help="Where it shall run: host, host:onnxruntime, systolic:128x128, macs, bops, bytes ...")
]
Also = Annotated[
    Sequence[str],
    Parameter(
        help="Another target to search for, and a table of what each policy costs on the others; repeatable.",
        negative="",
        show_default=False,
    ),
]
Family = Annotated[
    str | None,
    Parameter(
        help="A classic method in place of the search: uniform-int8 (bf16, w4a8 ... w1a2), magnitude, learned, "
        "distillation (magnitude-0.5 removes that share, magnitude-0.5+int8 rounds what stays), or a technique of "
        "structural replacement."
    ),
]
MaxDrop = Annotated[
    float | None, Parameter(help="Accuracy points that may be lost; more is a failure.", validator=Number(gte=0))
]
Trials = Annotated[Count, Parameter(help="Candidates of the search.")]
Sampler = Annotated[
    Literal["auto", "tpe", "random", "uniform", "nsga2", "ddpg-prune", "ddpg-quantize", "ddpg-joint"],
    Parameter(help="auto is uniform, greedy, then TPE; ddpg-... are Galen's agents."),
]
Methods = Annotated[str, Parameter(help="What may be done, separated by commas.")]
TrainEpochs = Annotated[
    Count | None,
    Parameter(help="Epochs of the first training of a network without weights; its recipe's by default."),
]
Epochs = Annotated[Count | None, Parameter(help="Epochs of retraining; as many as the model's own by default.")]
Finalists = Annotated[Count, Parameter(help="Candidates that get a short retraining.")]
Retrained = Annotated[Count, Parameter(help="Of these, how many get the full one; the best is kept.")]
Ignore = Annotated[
    Sequence[str],
    Parameter(help="Patterns of layers that stay as they are.", consume_multiple=True, negative="", show_default=False),
]
Store = Annotated[
    str | None, Parameter(help="Where the study is kept, such as a database that several machines search in.")
]
Ray = Annotated[str | None, Parameter(help="Ray cluster that scores the candidates: auto, local, ray://host:10001.")]
RunFolder = Annotated[
    Path | None, Parameter(help="Run directory, new, to go on with, or to help a running job; runs/... by default.")
]
AllowDrift = Annotated[
    bool, Parameter(help="Go on although versions or machine changed.", negative="", show_default=False)
]
