"""The upper rungs of the fidelity ladder: a short retraining of the finalists (L2), a full one of the best (L3).

The search below them ranks candidates by their score without training (L1), and starts from a sum of what each group
loses alone (L0).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from netfit.data import Dataset
from netfit.env import digest
from netfit.errors import JobError
from netfit.io import read_artifact
from netfit.models import Recipe
from netfit.runs import Run
from netfit.search import Row
from netfit.seeding import derive
from netfit.surgery import save
from netfit.train import evaluate

from ._evaluate import Evaluator
from ._retrain import retrain
from ._space import SearchSpace

__all__ = ["Ladder", "promoted"]

SHORT = 64  # batches of the short retraining


def promoted(rows: Sequence[Row], finalists: int) -> tuple[list[Row], bool]:
    """The best distinct candidates within the goal, and True; else the one nearest to the goal, and False.

    Raises:
        JobError: there is no candidate.
    """
    if not rows:
        raise JobError("no candidate could be evaluated: see log.txt and study.db in the run directory")
    feasible = sorted((r for r in rows if r.feasible), key=lambda r: (-(r.value or 0.0), r.violation, r.number))
    if not feasible:
        return [min(rows, key=lambda r: (r.violation, -(r.value or 0.0)))], False
    distinct = {digest(r.params): r for r in reversed(feasible)}
    return sorted(distinct.values(), key=feasible.index)[:finalists], True


@dataclass(frozen=True)
class Ladder:
    """Retrains candidates of one job.

    Args:
        run: keeps what was done.
        recipe: training arguments of the network.
        epochs: of the full retraining.
        train_set: what is trained on.
        held: inputs and labels held out from it; they decide.
        spec: how the original is built.
        taught: whether the uncompressed network teaches.
        progress: called with a stage and its numbers.
    """

    run: Run
    recipe: Recipe
    epochs: int
    train_set: Dataset
    held: tuple[Tensor, Tensor]
    spec: str
    taught: bool
    progress: Callable[[str, dict[str, Any]], None]

    def choose(self, rows: Sequence[Row], space: SearchSpace, evaluator: Evaluator, best: int) -> list[Row]:
        """The finalists that deserve the full retraining, the most promising first."""
        if len(rows) == 1:
            return list(rows)

        def play_off() -> dict[str, Any]:
            scores = []
            for i, row in enumerate(rows):
                model = evaluator.build(space.candidate(row.params))
                part = self.train_set.tensors(range(min(len(self.train_set), SHORT * self.recipe.batch_size)))
                self._retrain(evaluator.model, model, part, 1, None, f"finalist {i + 1}")
                scores.append(evaluate(model, *self.held))
            return {"numbers": [r.number for r in rows], "scores": scores}

        scores = self.run.stage("finalists", play_off)["scores"]
        order = sorted(range(len(rows)), key=lambda i: -scores[i])
        return [rows[i] for i in order[:best]]

    def finish(
        self, rows: Sequence[Row], build: Callable[[Row], nn.Module], base: nn.Module
    ) -> tuple[Row, nn.Module, dict[str, Any]]:
        """Retrain each of the given candidates in full and keep the one that is best on the held-out images."""
        done = []
        for i, row in enumerate(rows):
            small, history = self._in_full(build(row), base, "retrain" if i == 0 else f"retrain-{i + 1}")
            score = history["validation"][-1] if len(rows) > 1 else 0.0
            done.append((score, -i, row, small, history))
        _, _, row, small, history = max(done, key=lambda entry: entry[:2])
        return row, small, history

    def _in_full(self, small: nn.Module, base: nn.Module, word: str) -> tuple[nn.Module, dict[str, Any]]:
        place = self.run.path / "stages" / word

        def work() -> dict[str, Any]:
            found = self._retrain(base, small, self.train_set.tensors(), self.epochs, place, word)
            save(small, place.with_name(f"{word}-weights"), spec=self.spec, example_inputs=[])
            return asdict(found)

        history = self.run.stage(word, work)
        small.load_state_dict(read_artifact(place.with_name(f"{word}-weights")).tensors)
        return small.eval(), history

    def _retrain(
        self, base: nn.Module, small: nn.Module, part: tuple[Tensor, Tensor], epochs: int, place: Path | None, word: str
    ) -> Any:
        r = self.recipe
        return retrain(
            small, part, teacher=base if self.taught else None, epochs=epochs, lr=r.lr / 2, batch_size=r.batch_size,
            weight_decay=r.weight_decay, seed=derive(self.run.seed, word), augment=r.augment, checkpoint=place,
            validation=self.held if place else None, progress=lambda f: self.progress(word, f),
        )  # fmt: skip
