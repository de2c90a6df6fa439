"""The pass in other code, and the choice of the fastest by measurement."""

import time
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from netfit.bayes._gaussian import Gaussian
from netfit.deploy import open_session
from netfit.errors import ConfigError, NetfitError, TargetError, UnsupportedLayerError, did_you_mean

from ._export import onnx_proto
from ._module import PFP
from ._native import native
from ._trace import Frozen

__all__ = ["Backend", "Compiled", "compile_pfp"]

Backend = Literal["eager", "inductor", "native", "onnx"]
Pass = Callable[[Tensor], Gaussian]
_REPEATS = 15


class Compiled:
    """A pass in one code for batches of one size.

    Attributes:
        backend: the code.
        seconds: CPU seconds of a call of every candidate that was timed.
    """

    def __init__(self, backend: str, run: Pass, seconds: dict[str, float]) -> None:
        self.backend, self.seconds, self._run = backend, seconds, run

    def __call__(self, x: Tensor) -> Gaussian:
        """Moments of the logits of x (batch_size, ...)."""
        return self._run(x)


def compile_pfp(pfp: PFP, backend: str | Sequence[str], batch_size: int, threads: int) -> Compiled:
    """What `PFP.compile` promises."""
    known = get_args(Backend)
    wanted = list(known) if backend == "auto" else [backend] if isinstance(backend, str) else list(backend)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"backend={name!r} is unknown; {did_you_mean(name, (*known, 'auto'))}")
    if not wanted or batch_size < 1 or threads < 1:
        raise ConfigError(f"backend={backend!r}, batch_size={batch_size}, threads={threads}: give at least 1 of each")
    if len(wanted) == 1:
        return Compiled(wanted[0], _made(pfp, wanted[0], batch_size, threads), {})
    made: dict[str, Pass] = {}
    missing: dict[str, str] = {}
    for name in wanted:
        try:
            made[name] = _made(pfp, name, batch_size, threads)
        except NetfitError as e:  # no compiler, no runtime, no rule: another backend may have it
            missing[name] = str(e)
    if not made:
        raise UnsupportedLayerError("; ".join(f"{name}: {reason}" for name, reason in missing.items()))
    seconds = _timed(made, torch.randn(batch_size, *pfp.shape, generator=torch.Generator().manual_seed(0)))
    best = min(seconds, key=seconds.__getitem__)
    return Compiled(best, made[best], seconds)


def _timed(made: dict[str, Pass], x: Tensor) -> dict[str, float]:
    """Least CPU time of a call; the candidates take turns. The clock of the thread does not see other processes."""
    best = dict.fromkeys(made, float("inf"))
    with torch.no_grad():
        for turn in range(_REPEATS + 2):
            for name, run in made.items():
                start = time.thread_time()
                run(x)
                if turn >= 2:
                    best[name] = min(best[name], time.thread_time() - start)
    return best


def _made(pfp: PFP, backend: str, batch: int, threads: int) -> Pass:
    pfp.eval()
    if backend == "eager":
        return _eager(pfp)
    if backend == "native":
        return native(pfp, batch)
    return _onnx(pfp, batch, threads) if backend == "onnx" else _inductor(pfp, batch)


def _eager(pfp: PFP) -> Pass:
    @torch.no_grad()
    def run(x: Tensor) -> Gaussian:
        return pfp(x)

    return run


def _onnx(pfp: PFP, batch: int, threads: int) -> Pass:
    session = open_session(onnx_proto(pfp, batch_size=batch), "onnxruntime", threads)

    def run(x: Tensor) -> Gaussian:
        return Gaussian(*(torch.from_numpy(part) for part in session.run(x.numpy())))

    return run


def _inductor(pfp: PFP, batch: int) -> Pass:
    frozen = Frozen(pfp)
    compiled = torch.compile(frozen, dynamic=False, fullgraph=True)

    @torch.no_grad()
    def run(x: Tensor) -> Gaussian:
        return Gaussian(*compiled(x))

    try:
        run(torch.zeros(batch, *pfp.shape))
    except Exception as e:  # its errors are of its own many types
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise TargetError(f"torch.compile cannot build the pass: {reason}") from e
    return run
