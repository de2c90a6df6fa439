"""What the commands with a long job in a run directory have in common."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netfit.errors import NetfitError

from ._progress import progress

if TYPE_CHECKING:
    from netfit.runs import Run

__all__ = ["working"]

_OURS = {"run.json", "log.txt", ".lock"}  # what a run directory holds before any work is done


@contextmanager
def working(run: "Run", goal: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Work in a run directory; yields what shows the progress.

    Args:
        run: closed at the end; one that bad input ended before it began is removed.
        goal: largest latency ratio allowed; tells which trial is the best so far.
    """
    _leave_cores()
    print(f"{'helping the job in' if run.joined else 'run directory:'} {run.path}", file=sys.stderr)
    try:
        with run, progress(goal) as show:
            yield show
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with the same command and --run {run.path}") from None
    except NetfitError as e:
        if e.exit_status == 2 and not run.joined:
            _forget(run.path)
        raise


def _leave_cores() -> None:
    """Train on half of the cores unless the user chose: every operation waits for its slowest thread, so that one
    busy core makes a training step on all of them several times slower."""
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))


def _forget(place: Path) -> None:
    """A run that bad input ended before it began must not stand in the way of the corrected command."""
    with contextlib.suppress(OSError):
        if {entry.name for entry in place.iterdir()} <= _OURS:
            for entry in list(place.iterdir()):
                entry.unlink()
            place.rmdir()
