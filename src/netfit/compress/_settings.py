"""What a compression job may be told beside model, data, target and goal."""

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What a compression job may be told beside model, data, target and goal.

    Attributes:
        trials: candidates to evaluate in the search.
        sampler: ``"auto"`` (uniform, greedy, then TPE), ``"tpe"``, ``"random"``, ``"uniform"``, ``"nsga2"``, or one of
            Galen's agents: ``"ddpg-prune"``, ``"ddpg-quantize"``, ``"ddpg-joint"``.
        methods: ``"prune"``, ``"quantize"``, or both.
        epochs: of retraining; the model's own recipe when None.
        finalists: candidates that get a short retraining before one is chosen.
        max_drop: accuracy points that may be lost on the test set; None reports the loss only.
        ignore: patterns of layers that stay as they are.
    """

    trials: int = 60
    sampler: str = "auto"
    methods: tuple[str, ...] = ("prune", "quantize")
    epochs: int | None = None
    finalists: int = 3
    max_drop: float | None = None
    ignore: tuple[str, ...] = ()
