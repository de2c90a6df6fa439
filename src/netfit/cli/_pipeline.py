"""``netfit pipeline``: which schedule, on which links, with how much memory."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from ._options import Count, Json, Seed
from ._output import Output, answer, si, table
from ._pipeline_inputs import (
    EQUAL,
    NetworkName,
    Times,
    Work,
    costs_of,
    network_of,
    numbers,
    open_table,
    tables_of,
    words,
)

if TYPE_CHECKING:
    from netfit.pipeline import Comparison, Network, StageCosts, Timeline

__all__ = ["compare", "export", "optimize", "replay", "simulate"]

_ALL = "1f1b,gpipe,interleaved,chimera,hanayo-1,hanayo-2,zb-h1,zb-h2,zb-v,v-half,v-min,dualpipe,dualpipev"

Schedules = Annotated[
    str, Parameter(help="Names separated by commas; hanayo-2 has two waves, interleaved-4 four chunks.")
]
Table = Annotated[str, Parameter(help="Name of a schedule, or a torch CSV file.")]


def compare(
    *,
    devices: Annotated[Count, Parameter(help="Pipeline devices.")],
    microbatches: Annotated[str, Parameter(help="Numbers of microbatches, such as 4,8,16.")],
    schedules: Schedules = _ALL,
    network: Annotated[str, Parameter(help="One or more networks, as in simulate.")] = "free",
    work: Work = EQUAL,
    steps: Annotated[Count, Parameter(help="Training steps in a row; more than one compares the steady state.")] = 1,
    run: Annotated[Path | None, Parameter(name="--run", help="Directory for result.json and the report.")] = None,
    as_json: Json = False,
) -> Output:
    """Formula, table and simulation side by side."""
    sizes = numbers("--microbatches", microbatches)
    costs = costs_of(work, devices)
    networks = [network_of(name, devices) for name in words(network)]
    found, notes = [], []
    from netfit.pipeline import compare as run_compare

    for m in sizes:
        able, left_out = tables_of(words(schedules), devices, m)
        notes += left_out
        found.append(run_compare(able, costs, networks, steps=steps))
    data = {
        "kind": "pipeline", "devices": devices, "model": work.model, "costs": costs(devices).note, "notes": notes,
        "schedules": schedules, "networks": network, "steps": steps,
        "invocation": _invocation(work, devices, microbatches, schedules, network),
        "comparisons": [_comparison(c, m) for m, c in zip(sizes, found, strict=True)],
    }  # fmt: skip
    text = "\n\n".join([*(_compared(c, m, work) for m, c in zip(sizes, found, strict=True)), "\n".join(notes)]).strip()
    if run is not None:
        text += f"\n\n{_report(run, data, found, sizes, work, costs, networks)}"
    return answer(as_json, data, text)


def simulate(
    schedule: Table,
    /,
    *,
    devices: Annotated[Count, Parameter(help="Pipeline devices.")] = 4,
    microbatches: Annotated[Count, Parameter(help="Of one step.")] = 8,
    network: NetworkName = "free",
    send: Annotated[str, Parameter(help="overlap, or blocking: the sender waits.")] = "overlap",
    recv: Annotated[str, Parameter(help="when-needed, or in-order: as the row needs the messages.")] = "when-needed",
    duplex: Annotated[str, Parameter(help="full or half.")] = "full",
    work: Work = EQUAL,
    steps: Annotated[Count, Parameter(help="Training steps in a row.")] = 1,
    trace: Annotated[Path | None, Parameter(help="Write a Chrome trace for Perfetto.")] = None,
    as_json: Json = False,
) -> Output:
    """One schedule on one network."""
    from dataclasses import replace

    from netfit.pipeline import simulate as run_simulate

    table_ = open_table(schedule, devices, microbatches)
    links: Any = {"send": send, "recv": recv, "duplex": duplex}
    joined = replace(network_of(network, table_.devices), **links)
    timeline = run_simulate(table_, costs_of(work, table_.devices)(table_.stages), joined, steps)
    if trace is not None:
        timeline.to_chrome_trace(trace)
    data = _summary(timeline) | {"network": network, "trace": trace}
    return answer(as_json, data, _facts(timeline, work))


def optimize(
    *,
    devices: Annotated[Count, Parameter(help="Pipeline devices.")],
    microbatches: Annotated[Count, Parameter(help="Of one step.")],
    work: Work = EQUAL,
    network: NetworkName = "free",
    limit: Annotated[
        float | None,
        Parameter(name="--activations", help="Most activations per device: microbatches with --times, else bytes."),
    ] = None,
    seconds: Annotated[float, Parameter(help="Time for the search.", validator=Number(gt=0))] = 30.0,
    torch_csv: Annotated[Path | None, Parameter(help="Write the table for torch.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """The fastest schedule that fits, with a proof or a bound."""
    from netfit.pipeline import optimize as run_optimize
    from netfit.pipeline import simulate as run_simulate

    joined, costs = network_of(network, devices), costs_of(work, devices)(devices)
    best = run_optimize(devices, microbatches, costs, joined, limit, seconds, seed=seed)
    assert best.proof is not None  # optimize always sets it
    if torch_csv is not None:
        best.to_torch_csv(torch_csv)
    timeline = run_simulate(best, costs, joined)
    proof = {"status": best.proof.status, "bound_s": best.proof.bound_s, "found_s": best.proof.found_s}
    word = "proven optimal" if best.proof.optimal else f"nothing is faster than {si(best.proof.bound_s, 's')}"
    text = f"{best.label}: {si(best.proof.found_s, 's')}, {word}\n{_facts(timeline, work)}"
    return answer(as_json, _summary(timeline) | {"proof": proof, "torch_csv": torch_csv}, text)


def replay(
    schedule: Table,
    /,
    *,
    devices: Annotated[Count, Parameter(help="Pipeline devices: as many processes are started.")] = 4,
    microbatches: Annotated[Count, Parameter(help="Of one step.")] = 4,
    times: Times = "0.12,0.12,0.12",
    as_json: Json = False,
) -> Output:
    """Run a schedule on real torch processes and compare with the simulation."""
    from netfit.pipeline import agreement
    from netfit.pipeline import replay as run_replay
    from netfit.pipeline import simulate as run_simulate

    table_ = open_table(schedule, devices, microbatches)
    costs = costs_of(Work(times=times), table_.devices)(table_.stages)
    real, expected = run_replay(table_, costs), run_simulate(table_, costs)
    ratio, tau = agreement(real, expected)
    data = _summary(real) | {"simulated_s": expected.makespan, "ratio": ratio, "kendall_tau": tau}
    text = (
        f"replayed {real.makespan:.3f} s, simulated {expected.makespan:.3f} s: ratio {ratio:.3f}, Kendall tau {tau:.3f}"
    )
    return answer(as_json, data, text)


def export(
    schedule: Table,
    /,
    *,
    devices: Annotated[Count, Parameter(help="Pipeline devices.")] = 4,
    microbatches: Annotated[Count, Parameter(help="Of one step.")] = 8,
    torch_csv: Annotated[Path, Parameter(help="File to write, for torch's _load_csv(format='compute_only').")],
    as_json: Json = False,
) -> Output:
    """Write a schedule as a table that torch runs."""
    table_ = open_table(schedule, devices, microbatches).validate()
    table_.to_torch_csv(torch_csv)
    data = {"schedule": table_.label, "devices": table_.devices, "stages": table_.stages, "torch_csv": torch_csv}
    return answer(as_json, data, f"{torch_csv}: {table_.label}, {table_.stages} stages on {table_.devices} devices")


def _invocation(work: Work, devices: int, microbatches: str, schedules: str, network: str) -> str:
    """The command that makes the same page again."""
    options = {"devices": devices, "microbatches": microbatches, "schedules": schedules, "network": network}
    given = {name: value for name, value in vars(work).items() if value != getattr(EQUAL, name)}
    parts = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in (given | options).items()]
    return " ".join(["netfit pipeline compare", *parts])


def _comparison(found: "Comparison", microbatches: int) -> dict[str, Any]:
    return {
        "microbatches": microbatches, "rows": found.rows, "sweep": found.sweep, "flips": found.flips,
        "verdicts": found.verdicts(),
    }  # fmt: skip


def _compared(found: "Comparison", microbatches: int, work: Work) -> str:
    unit = "" if work.model is None else "B"  # equal stages count activations in microbatches
    columns = ("schedule", "formula", "#", "table", "#", "simulated", "#", "bubble", "exposed", "peak", "break-even")
    blocks = []
    for name in dict.fromkeys(row["network"] for row in found.rows):
        rows = sorted((r for r in found.rows if r["network"] == name), key=lambda r: r["simulated"])
        cells = [
            (
                r["schedule"], _maybe(r["formula"], "s"), _rank(r["rank_formula"]),
                si(r["table"], "s"), _rank(r["rank_table"]), si(r["simulated"], "s"), _rank(r["rank_simulated"]),
                f"{100 * r['bubble']:.1f} %", si(r["exposed_s"], "s"),
                si(r["peak_bytes"], unit), _maybe(r["break_even"], "B/s"),
            )
            for r in rows
        ]  # fmt: skip
        blocks.append(f"{microbatches} microbatches, {name}\n{table(columns, cells)}")
    return "\n\n".join([*blocks, *found.verdicts()])


def _maybe(value: float | None, unit: str) -> str:
    return "-" if value is None else si(value, unit)


def _rank(value: int | None) -> str:
    return "-" if value is None else str(value)


def _summary(timeline: "Timeline") -> dict[str, Any]:
    return {
        "schedule": timeline.schedule.label, "devices": timeline.schedule.devices,
        "microbatches": timeline.schedule.microbatches, "makespan_s": timeline.makespan,
        "device_span_s": timeline.device_span, "step_s": timeline.step_s, "bubble": timeline.bubble,
        "exposed_s": timeline.exposed_s.tolist(), "peak_bytes": timeline.peak_bytes.tolist(),
        "activation_peak": timeline.activation_peak.tolist(),
    }  # fmt: skip


def _facts(timeline: "Timeline", work: Work = EQUAL) -> str:
    unit = "" if work.model is None else "B"  # equal stages count activations in microbatches
    path = timeline.critical_path()
    parts = {what: sum(p.end - p.start for p in path if p.what == what) for what in ("compute", "message", "blocked")}
    rows = [
        ("makespan", si(timeline.makespan, "s")),
        ("one device", si(timeline.device_span, "s")),
        *([("step among many", si(timeline.step_s, "s"))] if timeline.steps > 1 else []),
        ("bubble", f"{100 * timeline.bubble:.2f} %"),
        ("exposed communication", si(float(timeline.exposed_s.mean()), "s") + " per device"),
        ("peak of the fullest device", si(float(timeline.peak_bytes.max()), unit)),
        ("critical path", ", ".join(f"{what} {si(seconds, 's')}" for what, seconds in parts.items() if seconds)),
    ]
    return table(("", timeline.schedule.label), rows)


def _report(
    run: Path, data: dict[str, Any], found: "list[Comparison]", sizes: list[int], work: Work,
    costs: "Callable[[int], StageCosts]", networks: "list[Network]",
) -> str:  # fmt: skip
    """Write the run directory; the timelines drawn are those of the smallest step on the first network."""
    from netfit import report
    from netfit.pipeline import make
    from netfit.pipeline import simulate as run_simulate
    from netfit.runs import Run

    smallest = sizes.index(min(sizes))
    rows = [r for r in found[smallest].rows if r["network"] == networks[0].name]
    drawn = []
    for row in sorted(rows, key=lambda r: r["simulated"])[:3]:
        table_ = make(row["schedule"], row["devices"], row["microbatches"])
        drawn.append(run_simulate(table_, costs(table_.stages), networks[0]).drawing())
    arguments = vars(work) | {k: data[k] for k in ("devices", "schedules", "networks", "steps")} | {"sizes": sizes}
    with Run.open(run, "pipeline compare", arguments, seed=0) as job:
        job.write_result(data | {"timelines": drawn})
    return f"report: {report.write(report.from_run(run), run / 'report.html')}"
