"""The main job: a network, a data set, a target and a goal in; a deployable network, its policy and proof out.

Every stage leaves its result in the run directory, so a killed job goes on where it was.
"""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from netfit import data as datasets
from netfit.env import digest
from netfit.errors import ConfigError, JobError
from netfit.io import read_artifact
from netfit.models import Recipe, recipe
from netfit.runs import Run
from netfit.seeding import derive, seed_everything
from netfit.surgery import load, open_model, save
from netfit.targets import Target, parse
from netfit.train import evaluate, fit

from ._cost import HostMeter, Meter, meter
from ._evaluate import Evaluator
from ._families import family
from ._found import Found, by_family, by_search
from ._ladder import Ladder
from ._result import deployed
from ._search import Search
from ._settings import Settings
from ._space import SearchSpace, search_space
from ._specialise import specialisation
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
        latency: goal, as a fraction of the uncompressed network's time on the same target; 1 for a family that has no
            goal but its precision.
        run: directory of the job; holds ``policy.toml``, ``model/`` and ``result.json`` at the end.
        settings: everything that has a default.
        progress: called with a stage name and its numbers.

    Returns:
        What ``result.json`` holds; of a joined run only what it did for the search of the process that owns it.

    Raises:
        ConfigError: an argument cannot be used.
        JobError: the goal cannot be met; the nearest candidate is kept in the run directory.
    """
    s = settings or Settings()
    if not 0 < latency <= 1:
        raise ConfigError(f"latency must be a fraction of today's, above 0 and at most 1; got {latency}")
    if s.family and s.also:
        raise ConfigError(f"further targets are for searches, and family {s.family!r} is none")
    if s.family and (chosen := family(s.family)).prunes and chosen.removes is None and latency == 1:
        raise ConfigError(
            f"family {s.family!r} removes channels until a latency is met: give one below 1, or a share, "
            f"such as {s.family}-0.5"
        )
    job = Job(model, data, target, latency, run, s, progress or (lambda stage, facts: None))
    return job.work()


class Job:
    """State of one job; the methods are its stages, in order."""

    def __init__(
        self, spec: str, data: str, target: Target, goal: float, run: Run, settings: Settings, progress: Progress
    ) -> None:
        self.spec, self.data, self.target, self.goal = spec, data, target, goal
        self.run, self.settings, self.progress = run, settings, progress
        self.shared = run  # keeps the stages that the parts of a study have in common
        self.taught = True  # what a search finds; a family says it itself
        self.others = {text: parse(text) for text in settings.also}
        self.name = str(run.arguments.get("target", target.fingerprint().get("target", "target")))
        seed_everything(run.seed)
        self.train_set, held = self._split(data)
        self.test_set = datasets.load(data, "test")
        datasets.check_disjoint(self.train_set, held)
        self.held = held.tensors()
        self.classes, self.shape = len(self.train_set.classes), self.train_set.shape
        self.example = (torch.zeros(1, *self.shape),)
        self.recipe = _recipe(spec)
        self.epochs = settings.epochs or self.recipe.epochs

    def _split(self, data: str) -> tuple[datasets.Dataset, datasets.Dataset]:
        whole = datasets.load(data, "train")
        return whole.hold_out(min(HELD_OUT, len(whole) // 5), derive(self.run.seed, "held-out") % 2**31)

    def part(self, run: Run, goal: float, settings: Settings, progress: Progress) -> Self:
        """Another way to compress the same network: it shares all but its stages, and a search is not taught either."""
        other = copy.copy(self)
        other.run, other.goal, other.settings, other.progress = run, goal, settings, progress
        other.taught = False
        return other

    def work(self) -> dict[str, Any]:
        """Do the job; every stage is read back where it was done before."""
        if self.run.joined and self.settings.family:
            raise ConfigError(f"{self.run.path} is in use, and a family leaves nothing to help with: name another run")
        space, base, gauge = self.prepared()
        found = self.found(space, base, gauge)
        if found is None:
            return {"kind": "compress", "joined": True, "trials": self.settings.trials}
        result = self.shipped(base, gauge, found)
        self._judge(result, found)
        return result

    def prepared(self) -> tuple[SearchSpace, nn.Module, Meter]:
        """What can be chosen, the uncompressed network, and what measures against it."""
        model, trained = self._open()
        # The structure is enough for the space, and what is wrong with it should not be found after the training.
        space = self.space(model, self.target)
        base = model if trained else self._trained(model)
        return space, base, self.meter(base, self.target)

    def found(self, space: SearchSpace, base: nn.Module, gauge: Meter) -> Found | None:
        """The compressed network, retrained; None where the run is another process's."""
        if self.settings.family is None:
            return by_search(self, space, base, gauge)
        return by_family(self, family(self.settings.family), space, base, gauge)

    def shipped(self, base: nn.Module, gauge: Meter, found: Found) -> dict[str, Any]:
        """Export, check, measure and test a compressed network, and write the result."""
        found.policy.save(self.run.path / "policy.toml")
        self.progress("deploy", {})
        result = self.run.stage("deploy", lambda: deployed(self, base, gauge, found))
        if self.others and found.search is not None:
            both = {self.name: found.search}
            both |= {name: self._other(name, target, base) for name, target in self.others.items()}
            result["also"] = self.run.stage("also", lambda: specialisation(both))
        self.run.write_result(result)
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

    def space(self, model: nn.Module, target: Target) -> SearchSpace:
        """What can be chosen for the network on a target."""
        methods, ignore = self.settings.methods, self.settings.ignore
        return search_space(model, torch.zeros(2, *self.shape), target=target, methods=methods, ignore=ignore)

    def _trained(self, model: nn.Module) -> nn.Module:
        """The network after training, from disk when it was trained before."""
        place = self.shared.path / "base"

        def train() -> dict[str, Any]:
            r, epochs = self.recipe, self.settings.train_epochs or self.recipe.epochs
            history = fit(
                model, self.train_set.tensors(), epochs=epochs, lr=r.lr, batch_size=r.batch_size,
                weight_decay=r.weight_decay, seed=derive(self.run.seed, "base"), augment=r.augment,
                checkpoint=self.shared.path / "stages" / "base", progress=lambda f: self.progress("train", f),
            )  # fmt: skip
            save(model, place, spec=self.spec, num_classes=self.classes, example_inputs=self.example)
            return {"loss": history.loss[-1]}

        self.shared.stage("base", train)
        original, _ = open_model(self.spec, num_classes=self.classes, in_shape=self.shape)
        return load(place, model=original).model

    def meter(self, base: nn.Module, target: Target, name: str = "") -> Meter:
        """The meter of a target; the yardstick's runtime is chosen once in a run."""
        self.progress("measure", {})
        gauge = meter(target, base, self.example)
        if isinstance(gauge, HostMeter):
            gauge.use(self.shared.stage(f"yardstick{name}", lambda: gauge.runtime))
        return gauge

    def stepped(self, space: SearchSpace, base: nn.Module, gauge: Meter, target: Target, name: str = "") -> SearchSpace:
        """The space with the channel counts that pay, where the target is a clock and not a formula."""
        if target.kind != "measured" or all(len(steps) < 2 for steps in space.steps.values()):
            return space
        timed = Evaluator(base, space, self.calibration()[:TIMED], self.held)
        found = self.shared.stage(f"steps{name}", lambda: useful_steps(space, timed, gauge))
        return replace(space, steps={group: tuple(steps) for group, steps in found.items()})

    def base_accuracy(self, base: nn.Module) -> float:
        """Of the uncompressed network, on the test split."""
        return float(self.shared.stage("accuracy", lambda: evaluate(base, *self.test_set.tensors())))

    def calibration(self) -> Tensor:
        """Training inputs for statistics and scales."""
        return self.train_set.tensors(range(min(CALIBRATION, len(self.train_set))))[0]

    def evaluator(self, base: nn.Module, space: SearchSpace, scores: dict[str, Tensor] | None = None) -> Evaluator:
        """Scores candidates on held-out images."""
        return Evaluator(base, space, self.calibration(), (self.held[0][:SCORED], self.held[1][:SCORED]), scores)

    def search(self, evaluator: Evaluator, gauge: Meter, target: Target, folder: Path, **more: Any) -> Search:
        """A search of this job, for a target."""
        weights = digest({k: float(v.double().sum()) for k, v in evaluator.model.state_dict().items()})
        identity = {"weights": weights, "data": self.data, "seed": self.run.seed, "target": target.fingerprint()}
        arguments: dict[str, Any] = {
            "goal": self.goal * gauge.margin, "folder": folder, "seed": derive(self.run.seed, "search"),
            "sampler": self.settings.sampler, "identity": identity,
            "progress": lambda f: self.progress("search", f | {"of": self.settings.trials, "goal": self.goal}),
        }  # fmt: skip
        return Search(evaluator.space, evaluator, gauge, **(arguments | more))

    def _other(self, name: str, target: Target, base: nn.Module) -> Search:
        """The same search for another target, finished."""
        word = re.sub(r"[^A-Za-z0-9._-]", "-", name)
        gauge = self.meter(base, target, f"-{word}")
        space = self.stepped(self.space(base, target), base, gauge, target, f"-{word}")
        found = self.search(self.evaluator(base, space), gauge, target, self.run.path / "also" / word)
        found.run(self.settings.trials)
        return found

    def ladder(self, taught: bool | None = None) -> Ladder:
        """What retrains candidates of this job."""
        taught = self.taught if taught is None else taught
        return Ladder(
            self.run, self.recipe, self.epochs, self.train_set, self.held, self.spec, taught, self.progress
        )  # fmt: skip

    def _judge(self, result: dict[str, Any], found: Found) -> None:
        final, drop = result["final"], self.settings.max_drop
        if final.get("agreement", 1.0) < AGREEMENT:
            raise JobError(
                f"the exported file and the network agree on {100 * final['agreement']:.1f} % of the inputs only: "
                f"do not deploy {self.run.path / 'model' / 'model.onnx'}"
            )
        if not final["met"]:
            floor = min(float(r.attrs["cost"]["ratio"]) for r in found.rows)
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
