"""``netfit detect record`` and ``inject``: labelled data of channels that come and go."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._detect import Form, GroupBy, duration, grouping
from ._options import Count, Json, Seed, words
from ._output import Output, answer, table

__all__ = ["inject", "record"]

_FAULTS = ("leak", "busy", "hang", "kill")


def record(
    out: Annotated[Path, Parameter(help="Parquet file to write.")],
    /,
    *,
    groups: Annotated[Count, Parameter(help="Groups of alike processes.")] = 3,
    nodes: Annotated[Count, Parameter(help="Processes of each group.")] = 24,
    seconds: Annotated[float, Parameter(help="How long.")] = 300.0,
    faults: Annotated[str, Parameter(help="Kinds by commas; each befalls every group once.")] = ",".join(_FAULTS),
    churn: Annotated[float, Parameter(help="Share of the nodes that leave in order while others join.")] = 0.1,
    step: Annotated[str, Parameter(help="Time between rows.")] = "1s",
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Record real processes of this machine, some of which fail on purpose."""
    from netfit.detect.fleet import record as start
    from netfit.detect.fleet import write_recording

    kinds = words("--faults", faults, _FAULTS)
    if out.suffix != ".parquet":
        raise ConfigError(f"{out}: a recording is a Parquet file, name it so")

    def say(seconds: float, what: str) -> None:
        print(f"{seconds:.0f} s: {what}", file=sys.stderr, flush=True)

    made = start(
        groups=groups, nodes=nodes, seconds=seconds, faults=kinds, churn=churn, interval_s=duration("--step", step),
        seed=seed, progress=say,
    )  # fmt: skip
    write_recording(out, made)
    rows = [(f.node, f.kind, f"{f.start:.0f}", f"{f.end:.0f}") for f in made.faults]
    facts = {
        "file": out, "rows": len(made.frame), "channels": len(made.frame.columns),
        "faults": [asdict(fault) for fault in made.faults], "moves": made.moves,
    }  # fmt: skip
    text = (
        f"{table(('node', 'fault', 'start', 'end'), rows)}\n{facts['rows']} rows of {facts['channels']} channels: {out}"
    )
    return answer(as_json, facts, text)


def inject(
    data: Annotated[Path, Parameter(help="Table without anomalies, CSV or Parquet.")],
    out: Annotated[Path, Parameter(help="Table to write, .csv or .parquet.")],
    labels: Annotated[Path, Parameter(help="Table of labels to write: bits of the categories of each row.")],
    /,
    *,
    group_by: GroupBy = None,
    categories: Annotated[str | None, Parameter(help="Some of the seven, by commas.")] = None,
    ratio: Annotated[float, Parameter(help="Times the paper's share of abnormal rows.")] = 1.0,
    form: Form = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Put the anomalies of the DeepHYDRA paper's generator into a table."""
    from netfit.detect import Frame
    from netfit.detect.fleet import CATEGORIES
    from netfit.detect.fleet import inject as put
    from netfit.detect.inputs import read_whole, write_table

    chosen = tuple(CATEGORIES) if categories is None else words("--categories", categories, tuple(CATEGORIES))
    made = put(read_whole(data, form), grouping(group_by), categories=chosen, ratio=ratio, seed=seed)
    write_table(out, made.frame)
    write_table(labels, Frame(made.frame.times, ("label",), made.mask[:, None].astype(float)))
    counts = {name: int((made.mask & CATEGORIES[name] > 0).sum()) for name in chosen}
    text = table(("category", "bit", "rows"), [(n, str(CATEGORIES[n]), str(c)) for n, c in counts.items()])
    facts = {"file": out, "labels": labels, "rows": counts, "bits": {n: CATEGORIES[n] for n in chosen}}
    return answer(as_json, facts, f"{text}\n{out}\n{labels}")
