"""Trials whose process died: found, marked failed, and tried again.

A repetition is a waiting trial with the user attributes ``retry_of`` (the number of the trial it repeats), ``index``
(that trial's index, so that it draws the same numbers) and ``retries`` (how often it may already have killed its
process). It is written before the dead trial is marked failed; a kill in between is seen by its ``retry_of``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._owner import alive, me
from ._space import Dimension

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["MAX_RETRY", "indices", "recover", "retry", "spent"]

MAX_RETRY = 2


def recover(study: optuna.Study, space: Mapping[str, Dimension], mine_but: Collection[int] | None = None) -> None:
    """Retry every running trial of a dead process. Trials of other machines or of plain Optuna are left alone.

    Args:
        study: the study.
        space: its dimensions.
        mine_but: numbers; when given, this process's running trials are retried too, except these.
    """
    for trial in study.get_trials(deepcopy=False):
        owner = trial.user_attrs.get("owner")
        if trial.state.name != "RUNNING" or not owner:
            continue
        if not alive(owner):
            retry(study, trial, space, counted=True)
        elif owner == me() and mine_but is not None and trial.number not in mine_but:
            retry(study, trial, space, counted=False)


def retry(study: optuna.Study, trial: FrozenTrial, space: Mapping[str, Dimension], counted: bool) -> None:
    """Mark an interrupted trial failed and enqueue its point again, unless it was retried too often."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    if trials[trial.number].state.is_finished():
        return
    retries = trial.user_attrs.get("retries", 0) + counted
    done_before = any(t.user_attrs.get("retry_of") == trial.number for t in trials)
    if retries <= MAX_RETRY and not done_before:
        attrs = {"owner": me(), "retry_of": trial.number, "index": indices(trials)[trial.number], "retries": retries}
        if "note" in trial.user_attrs:
            attrs["note"] = trial.user_attrs["note"]
        study.enqueue_trial(_point(trial, space), user_attrs=attrs)
    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def indices(trials: Sequence[FrozenTrial]) -> list[int]:
    """For each trial the number of trials before it that repeat none; a repetition has its original's."""
    found = []
    fresh = 0
    for trial in trials:
        if "retry_of" in trial.user_attrs:
            found.append(trial.user_attrs["index"])
        else:
            found.append(fresh)
            fresh += 1
    return found


def spent(study: optuna.Study) -> tuple[int, int]:
    """Finished trials and running ones; a trial and its repetitions are one trial."""
    trials = study.get_trials(deepcopy=False)
    repetitions = sum("retry_of" in t.user_attrs for t in trials)
    running = sum(t.state.name == "RUNNING" for t in trials)
    return sum(t.state.is_finished() for t in trials) - repetitions, running


def _point(trial: FrozenTrial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """What to fix in a repetition.

    Nothing for a trial killed before all of its parameters were stored: its index draws them again, and a
    partly fixed point would draw the rest differently.
    """
    if trial.params.keys() == space.keys():
        return dict(trial.params)
    fixed = trial.system_attrs.get("fixed_params", {})
    return {name: value for name, value in fixed.items() if name in space}
