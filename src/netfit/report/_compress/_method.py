"""How the numbers were made: what a reader needs to trust or repeat them."""

from .._blocks import pairs
from .._format import MISSING, each, seconds, whole
from .._model import Block, Code, Note, Section, Table
from ._schema import CompressResult

__all__ = ["measurement", "reproduce"]


def measurement(r: CompressResult) -> Section:
    """Yardstick, runtime, threads, noise, images and substituted layers; what is missing is said."""
    blocks: list[Block] = []
    required = {
        "yardstick": r.yardstick,
        "noise flag": r.final.noisy,
        "images used": r.images,
        "substituted layers": r.substituted,
    }
    if absent := [name for name, value in required.items() if value is None]:
        blocks.append(Note("warning", f"Not recorded in this run: {', '.join(absent)}."))
    if facts := _facts(r):
        blocks.append(pairs(facts))
    if r.substituted:
        rows = tuple((s.name, s.asked, s.executed, s.why or MISSING) for s in r.substituted)
        blocks.append(Table(("layer", "asked", "executed", "why"), rows, note="Substituted layers"))
    text = "Latency is a ratio to the original network, timed in turns with it in the same run."
    return Section("How it was measured", text, tuple(blocks))


def reproduce(r: CompressResult) -> Section:
    """The command, what to do with the result, and the software and machine it ran on."""
    blocks: list[Block] = []
    if r.command:
        blocks.append(Code(r.command, "The command of this run"))
    if r.commands:
        blocks.append(Code("\n".join(r.commands), "What to do with the result"))
    seed = {} if r.seed is None else {"seed": r.seed}
    host = {"host": r.host} if isinstance(r.host, str) else r.host
    for note, values in (("Seed and versions", seed | r.versions), ("Machine", host)):
        if values:
            blocks.append(pairs(values, note))
    return Section("Reproduce", "", tuple(blocks))


def _facts(r: CompressResult) -> dict[str, str]:
    facts = {}
    if y := r.yardstick:
        facts["Yardstick"] = f"the original network in fp32, {each(seconds, y.latency_s)}"
        facts["Runtime"] = " ".join(t for t in (y.runtime, y.version) if t) or MISSING
        facts["Threads, batch"] = f"{whole(y.threads)}, {whole(y.batch)}"
        if y.candidates:
            timed = (f"{name} {each(seconds, t)}" for name, t in y.candidates.items())
            facts["Runtimes tried for it"] = ", ".join(timed)
    if r.final.noisy is not None:
        facts["Noise"] = "too much, interval wider than ±3 %" if r.final.noisy else "interval within ±3 %"
    if r.images:
        facts["Images"] = ", ".join(f"{name} {whole(n)}" for name, n in r.images.items())
    if r.substituted is not None:
        n = len(r.substituted)
        facts["Substituted layers"] = f"{n}, listed below" if n else "none: every layer ran as asked"
    return facts
