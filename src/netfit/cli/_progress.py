"""How far a job is: bars on a terminal, else a line a few times a minute. Always on standard error."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["Lines", "Step", "progress"]

Report = Callable[[str, dict[str, Any]], None]

EVERY_S = 20.0
_TITLES = {
    "train": "train the original",
    "measure": "measure the original",
    "search": "search",
    "retrain": "retrain",
}


class Step:
    """What one report of the job says, in words and as a share.

    Args:
        goal: largest latency ratio allowed; tells which trial is the best so far.
    """

    def __init__(self, goal: float) -> None:
        self.goal = goal
        self._best: dict[str, tuple[tuple[bool, float], str]] = {}

    def read(self, stage: str, facts: Mapping[str, Any]) -> tuple[str, int, int | None, str]:
        """Title, steps done, steps in all (None when nobody knows), and the numbers worth watching."""
        title = _TITLES.get(stage, stage)
        if "trials" in facts:
            done, total = min(int(facts["trials"]), int(facts["of"])), int(facts["of"])  # seeds may be more
            return title, done, total, f"trial {done}/{total}, {self._found(stage, facts)}"
        if "epoch" in facts:
            epoch, epochs, steps = (int(facts[key]) for key in ("epoch", "epochs", "steps"))
            word, share = ("held out", facts["validation"]) if "validation" in facts else ("right", facts["accuracy"])
            text = f"epoch {epoch}/{epochs}, loss {facts['loss']:.3f}, {word} {100 * share:.1f} %"
            return title, (epoch - 1) * steps + int(facts["step"]), epochs * steps, text
        return title, 0, None, ""

    def _found(self, stage: str, facts: Mapping[str, Any]) -> str:
        """The best trial of a search within its goal; the fastest one while there is none."""
        score, ratio = float(facts["score"]), float(facts["ratio"])
        met = ratio <= facts.get("goal", self.goal)
        rank = (met, score if met else -ratio)
        if stage not in self._best or rank > self._best[stage][0]:
            self._best[stage] = rank, f"{'best' if met else 'nearest'} {100 * score:.1f} % at {ratio:.3f}"
        return self._best[stage][1]


class Lines:
    """One line when a stage begins, and one every twenty seconds after that.

    Args:
        step: reads the reports.
        stream: where the lines go.
        clock: seconds that only grow.
    """

    def __init__(self, step: Step, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.step, self.stream, self.clock = step, stream, clock
        self._stage, self._last = "", 0.0

    def __call__(self, stage: str, facts: dict[str, Any]) -> None:
        """Take one report of the job."""
        title, _, _, text = self.step.read(stage, facts)
        now = self.clock()
        if stage == self._stage and now - self._last < EVERY_S:
            return
        self._stage, self._last = stage, now
        print(f"{title}{text and ': '}{text}", file=self.stream, flush=True)


@contextmanager
def progress(goal: float) -> Iterator[Report]:
    """Show a job that calls the yielded function with a stage's name and its numbers."""
    step = Step(goal)
    if not sys.stderr.isatty():
        yield Lines(step, sys.stderr)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:20}"), BarColumn(bar_width=10), TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:

        def show(stage: str, facts: dict[str, Any]) -> None:
            title, done, total, text = step.read(stage, facts)
            if stage not in tasks:
                for old in bars.tasks:  # a stage ends when the next one begins
                    bars.update(old.id, total=old.total or 1, completed=old.total or 1)
                    bars.stop_task(old.id)
                tasks[stage] = bars.add_task(title, total=total, text=text)
            bars.update(tasks[stage], completed=done, text=text)

        yield show
