"""``netfit embed`` and ``netfit vta run``: operators on hardware with one matrix instruction."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ._options import Json, Seed
from ._output import Output, answer, si, table, write_page

__all__ = ["embed", "vta_run"]


def embed(
    convolution: Annotated[
        str, Parameter(help="n, c, h, w and settings, such as 1x64x56x56,k=64,r=3,s=3,stride=1,padding=1,groups=1.")
    ],
    /,
    *,
    core: Annotated[str, Parameter(help="1x16 or 4x8.")] = "1x16",
    program: Annotated[Path | None, Parameter(help="Write the program of one group, for netfit vta run.")] = None,
    seconds: Annotated[float, Parameter(help="Seconds of search for each assignment of operands.")] = 60.0,
    run: Annotated[Path | None, Parameter(help="Run directory; runs/... by default.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Prove the fewest instructions of a convolution, and derive layouts and a program."""
    from netfit.compile._sizes import ConvSizes
    from netfit.compile.embed import embed as solve
    from netfit.compile.embed import reference
    from netfit.runs import Run
    from netfit.targets.vta import Config

    sizes, config = ConvSizes.from_text(convolution), Config.from_text(core)
    arguments = {"convolution": convolution, "core": core, "seconds": seconds}
    with Run.open(run, "embed", arguments, seed) as opened:
        found = solve(sizes, config, limit_s=seconds)
        fixed = reference(sizes, config)
        axes = sizes.axes
        facts = {
            "kind": "embed", "convolution": convolution, "core": config.name, "macs": sizes.macs,
            "calls": found.calls, "reference_calls": found.reference_calls, "roles": found.solution.roles,
            "proven": found.solution.proven, "seconds": found.solution.seconds,
            "utilization": found.utilization, "reference_utilization": fixed.utilization,
            "axes": [
                {"name": a, "extent": axes[a], "tile": found.solution.tiles[a], "loops": found.layout.loops(a),
                 "lanes": _lanes(a, found.swapped)}
                for a in axes
            ],
            "layouts": found.layouts(), "packed_bytes": found.packed_bytes, "cycles": found.cost(),
            "reference_cycles": fixed.cost(),
        }  # fmt: skip
        if program is not None:
            found.lower().save(program)
        opened.write_result(facts)
    return _outcome(opened.path, as_json, facts)


def _lanes(axis: str, swapped: bool) -> str:
    if axis in ("c", "r", "s"):
        return "z"
    return "xy"[(axis == "k") != swapped]


def _outcome(place: Path, as_json: bool, facts: Mapping[str, Any]) -> Output:
    write_page(place)
    rows = [(a["name"], str(a["extent"]), str(a["tile"]), str(a["loops"]), a["lanes"]) for a in facts["axes"]]
    text = table(("axis", "extent", "in the lanes", "loops", "of"), rows)
    proof = "proven least" if facts["proven"] else "not proven least"
    text += f"\n{facts['calls']} instructions ({proof}), {facts['reference_calls'] / facts['calls']:.3g} times fewer"
    text += f" than channels on the lanes; operands {facts['roles']}; {facts['utilization']:.1%} of the core used"
    mine, theirs = facts["cycles"], facts["reference_cycles"]
    text += f"\n{si(mine['accelerator'])} cycles and {si(mine['packing'])} of packing; channels on the lanes: "
    text += f"{si(theirs['accelerator'])} and {si(theirs['packing'])}"
    text += "".join(f"\n{name}: {layout}" for name, layout in facts["layouts"].items())
    return answer(as_json, {"run": place, **facts}, f"{text}\nreport: {place / 'report.html'}")


def vta_run(
    program: Annotated[Path, Parameter(help="A program that netfit embed --program or Program.save wrote.")],
    /,
    *,
    listing: Annotated[bool, Parameter(negative="", help="Print the instructions, too.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Check the tokens of a program, run it on random operands, and count its cycles."""
    import numpy as np

    from netfit.env import digest
    from netfit.targets.vta import Program, simulate

    loaded, rng = Program.load(program), np.random.default_rng(seed)
    c, words = loaded.config, loaded.words
    inp = rng.integers(-128, 128, (words["inp"], c.batch, c.block_in)).astype(np.int8)
    wgt = rng.integers(-128, 128, (words["wgt"], c.block_out, c.block_in)).astype(np.int8)
    out, stats = simulate(loaded, inp, wgt)
    facts = {
        "program": str(program), "core": c.name, "instructions": len(loaded), "uops": len(loaded.uops),
        "cycles": stats.cycles, "seconds": stats.seconds, "utilization": stats.utilization, "busy": stats.busy,
        "counters": stats.counters, "result": digest(out.tolist())[:16],
    }  # fmt: skip
    rows = [(name, si(value)) for name, value in {**stats.counters, **stats.busy}.items()]
    text = f"{loaded.listing()}\n\n" if listing else ""
    text += table(("counter", ""), rows)
    text += f"\n{len(loaded)} instructions, {si(stats.cycles)} cycles, {si(stats.seconds, 's')}; tokens are complete; "
    text += f"{stats.utilization:.1%} of the core's steps; result {facts['result']}"
    return answer(as_json, facts, text)
