"""The papers' main claims on noisy hardware, tried on small networks: same direction or not.

Fashion-MNIST unless said, 20 000 training and 5 000 test images, eight epochs, one seed. Some 6 CPU minutes on one
core; an interrupted study goes on (runs/analog-study, or $NETFIT_ANALOG_RUN).
"""

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._analog_nets import Pair, images, lenet, one_thread, perceptron, trainer
from benchmarks._common import record
from netfit.analog import (
    AdditiveGaussian,
    ConstantScale,
    MixedGaussian,
    MultiplicativeGaussian,
    Trainer,
    combine_midpoints,
    midpoint,
    robustness,
    walk,
)  # fmt: skip
from netfit.analog.diagnostics import accuracies, binarization_gap
from netfit.analog.schedules import Constant, HalfNormal, Schedule
from netfit.runs import Run
from netfit.surgery import Policy, plain

RUN = Path(os.environ.get("NETFIT_ANALOG_RUN", "runs/analog-study"))
TRAIN, TEST, EPOCHS, SEEDS = 20_000, 5_000, 8, 1
WALKING, VANT, HARDENING = "Walking Noise", "Variance-Aware Noisy Training", "On Hardening"
Row = dict[str, Any]


def row(claim: str, paper: str, theirs: str, ours: str, same: bool, goal: str = "", met: bool = False) -> Row:
    """One line of the page: the direction of the claim, and a goal for its size where there is one."""
    answer = {"claim": claim, "paper": paper, "their figure": theirs, "ours": ours, "same": "yes" if same else "no"}
    return answer | {"goal": goal, "met": ("yes" if met else "no") if goal else ""}


def mean(values: list[float]) -> float:
    """Of a non-empty list."""
    return statistics.fmean(values)


def global_midpoint(model: Any, data: Pair, seed: int) -> float:
    """Additive noise at all sites at which accuracy is half way to chance."""
    levels = [0.25 * 2 ** (i / 2) for i in range(12)]
    clean, *found = accuracies(model, AdditiveGaussian(1.0), data, [0.0, *levels], seed=seed)
    return midpoint(levels, found, clean=clean, chance=0.1).std


def every_type(folder: Path) -> list[Row]:
    """Noisy training beside clean training, three kinds of noise at all sites, three data sets."""
    rows = []
    for name in ("mnist", "fashion-mnist", "fsdd"):
        train, test = images(name, 10_000, 2_000)
        make = trainer(train, 5 if len(train[0]) > 5000 else 15, bn=True)
        clean = make(seed=0)
        for noise in (AdditiveGaussian(0.5), MultiplicativeGaussian(0.7), MixedGaussian(0.4, 0.4)):
            level = sum(v for k, v in noise.settings().items() if k.endswith("std"))
            hard = plain(make(Policy({"*": noise}), seed=0, schedule=Constant(level)))
            both = [accuracies(net, noise, test, [level], seed=0)[0] for net in (clean, hard)]
            claim = f"noisy training raises robustness: {noise.name} {level:g}, {name}"
            rows.append(row(claim, WALKING, "higher", f"{both[0]:.3f} -> {both[1]:.3f}", both[1] > both[0]))
    return rows


def additive(folder: Path) -> list[Row]:
    """The walk with retraining, TFC without BatchNorm."""
    train, test = images("fashion-mnist", TRAIN, TEST)
    found = walk(
        trainer(train, EPOCHS), AdditiveGaussian(1.0), test, seeds=SEEDS, retrain=True, largest=2e4, folder=folder,
        progress=lambda done, total: print(f"walk {done}/{total}", flush=True),
    )  # fmt: skip
    points = [(found.midpoint(site), found.midpoint(site, trained=True)) for site in found.sites]
    ratios = [trained.std / clean.std for clean, trained in points if clean and trained]
    shown = ", ".join(f"{c}->{t}" for c, t in points)
    # Linear, ReLU ... from the input on: sites 1 to 5 are hidden, 6 is the last ReLU.
    up, hidden = min(ratios) > 1, min(ratios[1:6])
    rows = [
        row("training under noise at one site moves its midpoint up (sites 0-7)", WALKING, "up", shown, up),
        row("... hidden sites 1-5", WALKING, "up", f"x {hidden:.2f} at least", hidden > 1, "x 6", hidden >= 6),
        row("... last ReLU", WALKING, "up", f"x {ratios[6]:.3g}", ratios[6] > 1, "x 30", ratios[6] >= 30),
        row("... input", WALKING, "up", f"x {ratios[0]:.2f}", ratios[0] > 1, "x 1.8", ratios[0] >= 1.8),
    ]
    grown = sorted((r.std, r.weight) for r in found.rows if r.trained and r.site == "1" and r.seed == 0 and r.weight)
    limit = points[1][1].std if points[1][1] else 0.0
    grown = [g for g in grown if g[0] <= limit * 1.1]
    from scipy.stats import spearmanr

    rank = float(spearmanr(*zip(*grown, strict=True)).statistic) if len(grown) > 2 else float("nan")
    gain = grown[-1][1] / found.weights["1", 0]
    text = f"mean |w| x {gain:.2f} at the trained midpoint, rank correlation {rank:.2f}"
    met = gain >= 2 and rank >= 0.9
    rows.append(row("additive noise grows the weights before it", WALKING, "grows", text, gain > 1, "x 2, 0.9", met))
    rows.append(budget_rule("TFC", found.predicted(), found.midpoint()))
    return rows


def budget_rule(name: str, predicted: float | None, measured: Any) -> Row:
    """Global midpoint from those of the sites."""
    assert predicted is not None
    text = f"predicted {predicted:.3g}, measured {measured.std:.3g}"
    near = abs(predicted / measured.std - 1) <= 0.25
    return row(f"the global midpoint follows from the walk, {name}", "(ours)", "", text, near, "within 25 %", near)


def multiplicative(folder: Path) -> list[Row]:
    """Extreme multiplicative noise at one site of TFC with BatchNorm behind."""
    train, test = images("fashion-mnist", TRAIN, TEST)
    make, noise, std = trainer(train, EPOCHS, bn=True), MultiplicativeGaussian(1.0), 1e10
    rows, gaps = [], []
    for name, site in (("ReLU 1", "3"), ("ReLU 2", "6"), ("FC 2", "4"), ("BN 2", "5")):
        bare, hard = [], []
        for seed in range(SEEDS):
            clean = make(seed=seed, checkpoint=folder / f"clean-{seed}")
            bare += accuracies(clean, noise, test, [std], at=site, seed=seed)
            net = plain(make(Policy({site: noise}), seed=seed, schedule=Constant(std)))
            hard += accuracies(net, noise, test, [std], at=site, seed=seed)
            if site == "4":
                gaps.append(binarization_gap(net, (site, 0), test, std, seed))
        text, claim = f"{mean(bare):.3f} -> {mean(hard):.3f}", f"multiplicative noise 1e10 can be trained for, {name}"
        same, met = mean(hard) > 2 * mean(bare), mean(hard) >= 0.75 and mean(bare) <= 0.35
        rows.append(row(claim, WALKING, "extreme robustness", text, same, "<= .35 -> >= .75", met))
    text, lost = f"accuracy lost with two magnitudes: {mean(gaps):.4f}", mean(gaps)
    return [
        *rows,
        row("... by self-binarization, FC 2", WALKING, "binarizes", text, lost <= 0.1, "<= .02", lost <= 0.02),
    ]


def variance_aware(folder: Path) -> list[Row]:
    """VANT and constant noise on eight layers with BatchNorm, at three nominal levels."""
    train, test = images("fashion-mnist", TRAIN, 5_000)
    # Eight epochs leave eight layers under noise of 1.0 and more untrained.
    make, levels, noise = (
        trainer(train, 3 * EPOCHS, depth=8, bn=True),
        (0.05, 0.3, 0.6, 1.0, 1.3),
        AdditiveGaussian(1.0),
    )

    def curve(schedule: Schedule, seed: int) -> list[float]:
        return accuracies(plain(make(Policy({"*": noise}), seed=seed, schedule=schedule)), noise, test, levels, seed=0)

    fixed = [{level: curve(Constant(level), seed) for level in levels} for seed in range(SEEDS)]
    oracle = [[by_level[level][i] for i, level in enumerate(levels)] for by_level in fixed]
    rows = []
    for std, theta, goal, part in ((1.3, 0.52, 0.15, "mean"), (1.0, 0.4, 0.04, "mean"), (0.6, 0.24, 0.03, "worst")):
        vant = HalfNormal(std, theta=theta, warmup=make.steps // 4)
        own = [robustness(curve(vant, seed), oracle[seed]) for seed in range(SEEDS)]
        same = [robustness(fixed[seed][std], oracle[seed]) for seed in range(SEEDS)]
        best = [max(robustness(c, oracle[seed]).mean for c in fixed[seed].values()) for seed in range(SEEDS)]
        pairs = [(getattr(s, part), getattr(o, part)) for s, o in zip(same, own, strict=True)]
        text = "; ".join(f"{s:.3f} -> {o:.3f}" for s, o in pairs)
        gain = mean([o - s for s, o in pairs])
        claim = f"VANT beats constant noise of the same nominal level {std:g}, {part} R"
        rows.append(row(claim, VANT, "R .793 -> .976 (CIFAR-10)", text, gain > 0, f"+{goal:g}", gain >= goal))
        lead = mean([o.mean - b for o, b in zip(own, best, strict=True)])
        claim = f"... and the best constant level of {', '.join(map(str, levels))}, mean R"
        rows.append(row(claim, "(ours)", "", f"{lead:+.3f}", lead > 0))
    return rows


def constant_scale(folder: Path) -> list[Row]:
    """Quantization-aware training with a constant step, TFC, 8 bit, no noise in training."""
    train, test = images("fashion-mnist", TRAIN, TEST)
    make, mids, curves = trainer(train, EPOCHS), [], []
    for scale in (1.0, 4.0, 16.0, 64.0):
        net = make(Policy({"*": ConstantScale(scale)}), seed=0)
        mids.append(global_midpoint(net, test, 0))
        curves.append(accuracies(net, AdditiveGaussian(1.0), test, [0.0, 1.0, 3.0], seed=0))
    plainly = global_midpoint(make(seed=0), test, 0)
    noisy = plain(make(Policy({"*": AdditiveGaussian(1.5)}), seed=0, schedule=Constant(1.5)))
    hard = accuracies(noisy, AdditiveGaussian(1.0), test, [0.0, 1.0, 3.0], seed=0)
    text = f"float {plainly:.3g}; s = 1, 4, 16, 64: " + ", ".join(f"{m:.3g}" for m in mids)
    rising = all(a < b for a, b in zip([plainly, *mids], mids, strict=False))
    claim = "a larger constant step raises the global midpoint"
    rows = [row(claim, HARDENING, "helps", text, mids[-1] > plainly, "monotone", rising)]
    text = f"at noise 1: {curves[-1][1]:.3f} (s=64), {hard[1]:.3f} (noisy); at 3: {curves[-1][2]:.3f}, {hard[2]:.3f}"
    gain = min(hard[1] - curves[-1][1], hard[2] - curves[-1][2])
    rows.append(row("noisy training helps more", HARDENING, "helps more", text, gain > 0, "+0.03", gain >= 0.03))
    clean = f"clean accuracy {', '.join(f'{c[0]:.3f}' for c in curves)}"
    return [*rows, row("... the price of the step", "(ours)", "", clean, curves[-1][0] < curves[0][0])]


def repeats(folder: Path) -> list[Row]:
    """Tailored repetition and the budget rule on LeNet-5 with and without BatchNorm."""
    train, test = images("fashion-mnist", TRAIN // 2, 1_000)
    rows = []
    for name, bn in (("LeNet5", False), ("LeNet5-BN", True)):
        make: Trainer = lenet(train, 4, bn)
        found = walk(make, AdditiveGaussian(1.0), test, seeds=SEEDS, budgets=(2, 3, 5), folder=folder / name)
        rows.append(budget_rule(name, found.predicted(), found.midpoint()))
        for b in found.repeats:
            gain = b["tailored"] - b["uniform"]
            text = f"{b['uniform']:.3f} -> {b['tailored']:.3f}"
            claim = f"tailored beats uniform repetition, {name}, budget {b['budget']}"
            goal = "+0.015" if b["budget"] < 5 else ""
            rows.append(row(claim, WALKING, "better", text, gain > 0, goal, gain >= 0.015))
        sites = [found.midpoint(site) for site in found.sites]
        assert combine_midpoints([m.std for m in sites if m]) == found.predicted()
    return rows


def digits(folder: Path) -> list[Row]:
    """A whole walk on the digits of scikit-learn, in CPU seconds."""
    train, test = images("digits", 10_000, 10_000)
    make = Trainer(lambda: perceptron(64, 32, 2), train, epochs=15, lr=1e-2, batch_size=64)
    start = time.process_time()
    found = walk(make, AdditiveGaussian(1.0), test, seeds=1, retrain=True, largest=2e4, folder=folder / "digits")
    spent = time.process_time() - start
    both = [(found.midpoint(s), found.midpoint(s, trained=True)) for s in found.sites]
    ratios = [t.std / c.std for c, t in both if c and t]
    text = f"{spent:.1f} CPU s; x {', '.join(f'{r:.2g}' for r in ratios)}"
    met = spent <= 20 and min(ratios[1:]) >= 2.5
    return [row("a walk of digits takes seconds", WALKING, "", text, min(ratios) > 1, "20 s, hidden x 2.5", met)]


PARTS: tuple[Callable[[Path], list[Row]], ...] = (
    digits, every_type, multiplicative, constant_scale, variance_aware, repeats, additive,
)  # fmt: skip


def main() -> None:
    """Do or finish the study; its page grows with every part."""
    one_thread()
    settings = {"train": TRAIN, "test": TEST, "epochs": EPOCHS, "seeds": SEEDS}
    rows: list[Row] = []
    with Run.open(RUN, "analog-study", settings, 0) as run:
        for part in PARTS:
            start = time.monotonic()
            rows += run.stage(part.__name__, partial(part, run.path / part.__name__))
            print(f"{part.__name__}: {time.monotonic() - start:.0f} s", flush=True)
            done = ", ".join(p.__name__ for p in PARTS[: PARTS.index(part) + 1])  # an interrupted study has a page too
            record("analog", rows, **settings, parts=done, note="measured beside other jobs")


if __name__ == "__main__":
    main()
