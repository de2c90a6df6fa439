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
        finalists: candidates that get a short retraining.
        retrained: how many of these, the best ones, get the full retraining; the best of them is kept.
        max_drop: accuracy points that may be lost on the test set; None reports the loss only.
        ignore: patterns of layers that stay as they are.
        family: a classic method by its name (see `family`) in place of the search.
        also: further targets; each gets a search of its own, and a table says what each policy costs on the others.
        store: where the study is kept, if not in the run directory: jobs of several machines that name one database
            search together.
        train_epochs: of the first training, of a network that comes without weights; its recipe's when None.
        ray: address of a Ray cluster whose processors score the candidates, ``"local"`` for one on this machine.
    """

    trials: int = 60
    sampler: str = "auto"
    methods: tuple[str, ...] = ("prune", "quantize")
    epochs: int | None = None
    finalists: int = 10
    retrained: int = 1
    max_drop: float | None = None
    ignore: tuple[str, ...] = ()
    family: str | None = None
    also: tuple[str, ...] = ()
    store: str | None = None
    ray: str | None = None
    train_epochs: int | None = None
