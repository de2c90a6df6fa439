"""The main job: a network, a data set, a target and a goal in; a deployable network, its policy and proof out.

Every stage leaves its result in the run directory, so a killed job goes on where it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netfit import data as datasets
from netfit.env import digest
from netfit.errors import ConfigError, JobError
from netfit.io import read_artifact
from netfit.models import Recipe, recipe
from netfit.runs import Run
from netfit.search import Row
from netfit.seeding import derive, seed_everything
from netfit.surgery import load, open_model, save
from netfit.targets import Target
from netfit.train import evaluate, fit

from ._cost import Meter, meter
from ._evaluate import Evaluator
from ._result import deployed
from ._retrain import retrain
from ._search import Search
from ._settings import Settings
from ._space import Candidate, SearchSpace, search_space
from ._steps import useful_steps

__all__ = ["Settings", "compress"]

HELD_OUT, SCORED, CALIBRATION = 5000, 1000, 768
TIMED = 8  # inputs to build a network from that is only timed
AGREEMENT = 0.9  # of the most likely class on a few inputs; rounding alone stays far above
Progress = Callable[[str, dict[str, Any]], None]


def compress(
    model: str,
    data: str,
    target: Target,
    latency: float,
    run: Run,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compress a network until it meets a latency measured on the target.

    Trains the network first when it comes without weights. The search sees training data only; the test split is used
    once, at the end.

    Args:
        model: built-in name, factory, or saved artifact.
        data: name of a data set.
        target: where it shall run.
        latency: goal, as a fraction of the uncompressed network's time on the same target.
        run: directory of the job; holds ``policy.toml``, ``model/`` and ``result.json`` at the end.
        settings: everything that has a default.
        progress: called with a stage name and its numbers.

    Returns:
        What ``result.json`` holds.

    Raises:
        ConfigError: an argument cannot be used.
        JobError: the goal cannot be met; the nearest candidate is kept in the run directory.
    """
    s = settings or Settings()
    if not 0 < latency <= 1:
        raise ConfigError(f"latency must be a fraction of today's, above 0 and at most 1; got {latency}")
    job = _Job(model, data, target, latency, run, s, progress or (lambda stage, facts: None))
    return job.work()


class _Job:
    """State of one job; the methods are its stages, in order."""

    def __init__(
        self, spec: str, data: str, target: Target, goal: float, run: Run, settings: Settings, progress: Progress
    ) -> None:
        self.spec, self.data, self.target, self.goal = spec, data, target, goal
        self.run, self.settings, self.progress = run, settings, progress
        seed_everything(run.seed)
        self.train_set, held = self._split(data)
        self.test_set = datasets.load(data, "test")
        datasets.check_disjoint(self.train_set, held)
        self.held = held.tensors()
        self.classes, self.shape = len(self.train_set.classes), self.train_set.shape
        self.recipe = _recipe(spec)
        self.epochs = settings.epochs or self.recipe.epochs

    def _split(self, data: str) -> tuple[datasets.Dataset, datasets.Dataset]:
        whole = datasets.load(data, "train")
        return whole.hold_out(min(HELD_OUT, len(whole) // 5), derive(self.run.seed, "held-out") % 2**31)

    def work(self) -> dict[str, Any]:
        model, trained = self._open()
        example = (torch.zeros(1, *self.shape),)
        # The structure is enough for the space, and what is wrong with it should not be found after the training.
        space = search_space(
            model, torch.zeros(2, *self.shape), target=self.target, methods=self.settings.methods,
            ignore=self.settings.ignore,
        )  # fmt: skip
        base = model if trained else self._trained(model)
        gauge = self._meter(base, example)
        calibration = self.train_set.tensors(range(min(CALIBRATION, len(self.train_set))))[0]
        scored = (self.held[0][:SCORED], self.held[1][:SCORED])
        space = self._stepped(space, base, gauge, calibration)
        evaluator = Evaluator(base, space, calibration, scored)
        rows = self._search(space, evaluator, gauge)
        chosen, met = self._choose(rows, space, evaluator)
        candidate = space.candidate(chosen["params"])
        policy = space.policy(candidate)
        policy.save(self.run.path / "policy.toml")
        small, history = self._retrained(base, evaluator.build(candidate), met)
        self.progress("deploy", {})
        result = self.run.stage(
            "deploy", lambda: deployed(self, base, small, policy, space, candidate, gauge, rows, chosen, history)
        )
        self.run.write_result(result)
        self._judge(result, rows)
        return result

    # -- stages ------------------------------------------------------------------------------------------------

    def _open(self) -> tuple[nn.Module, bool]:
        """The uncompressed network, and whether it comes with weights."""
        model, trained = open_model(self.spec, num_classes=self.classes, in_shape=self.shape)
        with torch.no_grad():
            out = model.eval()(torch.zeros(2, *self.shape))
        if out.ndim != 2 or out.shape[1] != self.classes:
            found = "x".join(map(str, out.shape[1:]))
            raise ConfigError(f"{self.spec} returns {found} values a sample, {self.data} has {self.classes} classes")
        return model, trained

    def _trained(self, model: nn.Module) -> nn.Module:
        """The network after training, from disk when it was trained before."""
        place = self.run.path / "base"

        def train() -> dict[str, Any]:
            r = self.recipe
            history = fit(
                model, self.train_set.tensors(), epochs=r.epochs, lr=r.lr, batch_size=r.batch_size,
                weight_decay=r.weight_decay, seed=derive(self.run.seed, "base"), augment=r.augment,
                checkpoint=self.run.path / "stages" / "base", progress=lambda f: self.progress("train", f),
            )  # fmt: skip
            save(model, place, spec=self.spec, num_classes=self.classes, example_inputs=[torch.zeros(1, *self.shape)])
            return {"loss": history.loss[-1]}

        self.run.stage("base", train)
        original, _ = open_model(self.spec, num_classes=self.classes, in_shape=self.shape)
        return load(place, model=original).model

    def _meter(self, base: nn.Module, example: tuple[Tensor, ...]) -> Meter:
        self.progress("measure", {})
        return meter(self.target, base, example)

    def _stepped(self, space: SearchSpace, base: nn.Module, gauge: Meter, calibration: Tensor) -> SearchSpace:
        """The space with the channel counts that pay, where the target is a clock and not a formula."""
        if self.target.kind != "measured" or "prune" not in self.settings.methods:
            return space
        timed = Evaluator(base, space, calibration[:TIMED], self.held)
        found = self.run.stage("steps", lambda: useful_steps(space, timed, gauge))
        return replace(space, steps={group: tuple(steps) for group, steps in found.items()})

    def _search(self, space: SearchSpace, evaluator: Evaluator, gauge: Meter) -> list[Row]:
        search = Search(
            space, evaluator, gauge, goal=self.goal * gauge.margin, folder=self.run.path,
            seed=derive(self.run.seed, "search"), sampler=self.settings.sampler,
            identity=self._identity(evaluator.model),
            progress=lambda f: self.progress("search", f | {"of": self.settings.trials}),
        )  # fmt: skip
        return search.run(self.settings.trials)

    def _identity(self, base: nn.Module) -> dict[str, Any]:
        weights = digest({k: float(v.double().sum()) for k, v in base.state_dict().items()})
        return {"weights": weights, "data": self.data, "seed": self.run.seed, "target": self.target.fingerprint()}

    def _choose(self, rows: Sequence[Row], space: SearchSpace, evaluator: Evaluator) -> tuple[dict[str, Any], bool]:
        """Best candidate within the goal after a short retraining of the finalists; else the nearest to the goal."""
        feasible = sorted((r for r in rows if r.feasible), key=lambda r: (-(r.value or 0.0), r.violation, r.number))
        if not feasible:
            if not rows:
                raise JobError("no candidate could be evaluated: see log.txt and study.db in the run directory")
            nearest = min(rows, key=lambda r: (r.violation, -(r.value or 0.0)))
            return {"number": nearest.number, "params": nearest.params}, False
        distinct = list({digest(r.params): r for r in reversed(feasible)}.values())[::-1]
        finalists = distinct[: self.settings.finalists]
        if len(finalists) == 1:
            return {"number": finalists[0].number, "params": finalists[0].params}, True

        def play_off() -> dict[str, Any]:
            scores = [self._short(evaluator, space.candidate(r.params), i) for i, r in enumerate(finalists)]
            best = max(range(len(finalists)), key=lambda i: scores[i])
            return {"number": finalists[best].number, "params": finalists[best].params, "scores": scores}

        return self.run.stage("finalists", play_off), True

    def _short(self, evaluator: Evaluator, candidate: Candidate, index: int) -> float:
        model = evaluator.build(candidate)
        x, y = self.train_set.tensors(range(min(len(self.train_set), 64 * self.recipe.batch_size)))
        self._retrain(evaluator.model, model, (x, y), 1, None, f"finalist {index + 1}")
        return evaluate(model, *self.held)

    def _retrained(self, base: nn.Module, small: nn.Module, met: bool) -> tuple[nn.Module, dict[str, Any]]:
        """The chosen candidate, retrained; one that misses the goal is kept as it is."""
        if not met:
            return small, {}
        place = self.run.path / "stages" / "retrain"

        def work() -> dict[str, Any]:
            found = self._retrain(base, small, self.train_set.tensors(), self.epochs, place, "retrain")
            save(small, self.run.path / "stages" / "retrained", spec=self.spec, example_inputs=[])
            return asdict(found)

        history = self.run.stage("retrain", work)
        small.load_state_dict(read_artifact(self.run.path / "stages" / "retrained").tensors)
        return small.eval(), history

    def _retrain(
        self, base: nn.Module, small: nn.Module, part: tuple[Tensor, Tensor], epochs: int, place: Path | None, word: str
    ) -> Any:
        r = self.recipe
        return retrain(
            small, part, teacher=base, epochs=epochs, lr=r.lr / 2, batch_size=r.batch_size,
            weight_decay=r.weight_decay, seed=derive(self.run.seed, word), augment=r.augment, checkpoint=place,
            validation=self.held if place else None, progress=lambda f: self.progress(word, f),
        )  # fmt: skip

    def _judge(self, result: dict[str, Any], rows: Sequence[Row]) -> None:
        final, drop = result["final"], self.settings.max_drop
        if final.get("agreement", 1.0) < AGREEMENT:
            raise JobError(
                f"the exported file and the network agree on {100 * final['agreement']:.1f} % of the inputs only: "
                f"do not deploy {self.run.path / 'model' / 'model.onnx'}"
            )
        if not final["met"]:
            floor = min(float(r.attrs["cost"]["ratio"]) for r in rows)
            raise JobError(
                f"latency goal {self.goal:g} not met: nearest reachable is {min(floor, final['ratio']):.3f} of the "
                f"uncompressed network's; the best found is kept in {self.run.path}"
            )
        lost = 100 * (result["base"]["accuracy"] - final["accuracy_deployed"])
        if drop is not None and lost > drop:
            raise JobError(
                f"latency goal met at {final['ratio']:.3f} but {lost:.2f} points of accuracy lost, more than {drop:g}; "
                f"the best found is kept in {self.run.path}"
            )


def _recipe(spec: str) -> Recipe:
    """Training arguments of a model; those of the network it was made from for a saved one."""
    return recipe(str(read_artifact(spec).meta.get("spec", ":")) if Path(spec).is_dir() else spec)
