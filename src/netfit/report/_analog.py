"""The page of `netfit analog walk`, `harden` and `env`: accuracy against noise, and what it means."""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure, pairs
from ._format import digits, each, percent
from ._model import Block, Facts, Note, Report, Section, Table

__all__ = ["analog_report"]

Curve = tuple[float, ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Midpoint(_Part):
    """Noise at which accuracy is half way to chance."""

    std: float
    low: float | None = None
    high: float | None = None
    censored: bool = False

    def __str__(self) -> str:
        return ("> " if self.censored else "") + digits(self.std)


class Site(_Part):
    """One place of the network."""

    site: str
    call: int
    power: float
    midpoint: Midpoint | None = None
    trained: Midpoint | None = None
    grown: float | None = None
    gap: float | None = None

    @property
    def label(self) -> str:
        return (self.site or "network") + (f" ({self.call + 1})" if self.call else "")


class Row(_Part):
    """One measurement."""

    site: str
    call: int
    seed: int
    trained: bool
    std: float
    accuracy: float


class Repeats(_Part):
    """What sharing out executions gains."""

    budget: int
    std: float
    repeats: tuple[int, ...]
    uniform: float
    tailored: float


class Walk(_Part):
    """The result of a walk."""

    noise: str
    clean: Curve
    chance: float
    sites: tuple[Site, ...]
    rows: tuple[Row, ...]
    weakest: str
    everywhere: Midpoint | None = None
    predicted: float | None = None
    repeats: tuple[Repeats, ...] = ()


class Robustness(_Part):
    """Accuracy relative to networks made for each level."""

    mean: float
    worst: float


class Harden(_Part):
    """The result of hardening."""

    method: str
    std: float
    mean_std: float
    levels: Curve
    curves: dict[str, Curve]
    best_fixed: str
    baselines: tuple[str, str, str]
    robustness: dict[str, Robustness]


class Env(_Part):
    """The result of an environment."""

    stds: Curve
    accuracy: Curve
    clean: float
    threshold: float
    time_to_failure: int | None
    robustness: Robustness
    course: str = "?"


class _Task(_Part):
    task: Literal["walk", "harden", "env"]
    arguments: dict[str, Any] = {}


def analog_report(result: dict[str, Any]) -> Report:
    """A page from the content of ``result.json``.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    head = _Task.model_validate(result)
    model = str(head.arguments.get("model", "the network"))
    if head.task == "walk":
        page = _walk(Walk.model_validate(result), model)
    elif head.task == "harden":
        page = _harden(Harden.model_validate(result), model)
    else:
        page = _env(Env.model_validate(result), model)
    settings = (Section("Settings", blocks=(pairs(head.arguments),)),) if head.arguments else ()
    return Report(page.title, page.subtitle, (*page.sections, *settings))


def _walk(r: Walk, model: str) -> Report:
    weakest = next(s for s in r.sites if s.site == r.weakest)
    verdict = f"{weakest.label} bears least: half of what the network knows is gone at {weakest.midpoint}."
    facts = {"Clean accuracy": percent(sum(r.clean) / len(r.clean)), "Weakest site": weakest.label}
    facts["Noise at all sites"] = "–" if r.everywhere is None else str(r.everywhere)
    facts["predicted from the sites"] = each(digits, r.predicted)
    rows = tuple(
        (
            s.label,
            str(s.midpoint or "–"),
            _interval(s.midpoint),
            str(s.trained or "–"),
            _gain(s),
            each(lambda x: f"× {digits(x)}", s.grown),
            _snr(r, s),
            each(percent, s.gap),
        )
        for s in r.sites
    )
    columns = ("site", "midpoint", "95 %", "trained under it", "gain", "weights", "signal / noise", "binarized")
    note = "Standard deviation of the noise at which accuracy is half way to chance; > means never within reach. "
    note += "Weights: growth before the site; binarized: least accuracy lost with two magnitudes there"
    table = Table(columns, rows, "lrrrrrrr", note=note)
    curves = tuple(_curve(r, s) for s in r.sites)
    sections = (
        Section("Which site limits this network", blocks=(Facts(facts), table)),
        Section("Accuracy against noise, site by site", blocks=curves),
        _repeats(r),
    )
    return Report(f"Walking noise through {model}", verdict, tuple(s for s in sections if s.blocks))


def _interval(m: Midpoint | None) -> str:
    return "–" if m is None or m.low is None or m.high is None else f"{digits(m.low)} – {digits(m.high)}"


def _gain(s: Site) -> str:
    return "–" if s.midpoint is None or s.trained is None else f"× {digits(s.trained.std / s.midpoint.std)}"


def _snr(r: Walk, s: Site) -> str:
    """Of the noise at the midpoint, in the clean network."""
    if s.midpoint is None or s.power <= 0 or r.noise == "mixed_gaussian":
        return "–"
    power = s.power if r.noise == "additive_gaussian" else 1.0
    return f"{10 * math.log10(power / s.midpoint.std**2):.1f} dB"


def _curve(r: Walk, s: Site) -> Block:
    seed = min(row.seed for row in r.rows)
    series = {}
    for name, trained in (("as it is", False), ("trained under it", True)):
        mine = [x for x in r.rows if (x.site, x.call, x.seed, x.trained) == (s.site, s.call, seed, trained)]
        points = sorted((x.std, x.accuracy) for x in mine if x.std > 0)
        if points:
            series[name] = tuple(zip(*points, strict=True))

    def plot() -> str:
        return plots.lines(series, xlabel="standard deviation of the noise", ylabel="accuracy", log=True)

    return figure(s.label, f"Accuracy against noise at {s.label}; midpoint {s.midpoint}.", plot)


def _repeats(r: Walk) -> Section:
    rows = tuple(
        (str(b.budget), percent(b.uniform), percent(b.tailored), ", ".join(map(str, b.repeats))) for b in r.repeats
    )
    if not rows:
        return Section("Repeated execution")
    text = f"Every site executed several times and averaged, noise {digits(r.repeats[0].std)} everywhere."
    columns = ("mean executions", "the same everywhere", "where noise hurts", "executions of each site")
    return Section("Repeated execution", text, (Table(columns, rows, "lrrl"),))


def _harden(r: Harden, model: str) -> Report:
    own, best = r.robustness[r.method], r.robustness[r.best_fixed]
    better = own.mean - best.mean
    verdict = f"{r.method} keeps {percent(own.mean)} of what a network made for each level of noise reaches; "
    verdict += f"the best constant noise keeps {percent(best.mean)}."
    shown = list(dict.fromkeys([r.method, *r.baselines]))
    rows = tuple(
        (name, percent(r.robustness[name].mean), percent(r.robustness[name].worst), *map(percent, r.curves[name]))
        for name in dict.fromkeys([*shown, *r.curves])
    )
    columns = ("training", "robustness", "worst level", *(f"at {digits(level)}" for level in r.levels))
    series = {name: (r.levels, r.curves[name]) for name in shown}

    def plot() -> str:
        return plots.lines(series, xlabel="standard deviation of the noise", ylabel="accuracy")

    blocks: list[Block] = [
        Facts({"Robustness": percent(own.mean), "Worst level": percent(own.worst), "Mean noise": digits(r.mean_std)})
    ]
    if better <= 0:
        blocks.append(Note("warning", f"Constant noise ({r.best_fixed}) did as well or better: prefer it."))
    text = "Robustness is accuracy relative to the network trained at each level, mean over the levels. A method whose "
    text += "noise is weaker on average than its nominal level gains by that alone: compare with the best constant one."
    blocks += [
        figure("Accuracy against noise at all sites", f"Curves of {', '.join(shown)}.", plot),
        Table(
            columns, rows, "l" + "r" * (len(columns) - 1), note="Clean training and every constant level are baselines"
        ),
    ]
    return Report(f"{model} made robust to noise", verdict, (Section("What it brought", text, tuple(blocks)),))


def _env(r: Env, model: str) -> Report:
    failed = "It never failed." if r.time_to_failure is None else f"It failed at step {r.time_to_failure}."
    verdict = f"{percent(r.robustness.mean)} of the clean accuracy is kept on average. {failed}"
    steps = tuple(float(i) for i in range(len(r.stds)))
    limit = (r.threshold,) * len(steps)

    def accuracy() -> str:
        return plots.lines(
            {"network": (steps, r.accuracy), "failure": (steps, limit)}, xlabel="step", ylabel="accuracy"
        )

    def noise() -> str:
        return plots.lines({"noise": (steps, r.stds)}, xlabel="step", ylabel="standard deviation of the noise")

    facts = {
        "Without noise": percent(r.clean),
        "Mean": percent(r.robustness.mean),
        "Worst": percent(r.robustness.worst),
    }
    blocks = (
        Facts(facts),
        figure("Accuracy over time", "Accuracy at every step.", accuracy),
        figure(f"Noise over time ({r.course})", "Standard deviation at every step.", noise),
    )
    return Report(f"{model} among fluctuating noise", verdict, (Section("What happened", blocks=blocks),))
