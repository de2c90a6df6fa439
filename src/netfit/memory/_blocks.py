"""`recompute_blocks`: whole blocks are run again in the backward pass, statistics untouched."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from netfit.errors import ConfigError, did_you_mean

from ._compress import Handle

__all__ = ["recompute_blocks"]


def recompute_blocks(model: nn.Module, pattern: str) -> Handle:
    """Keep of some blocks only their inputs, and run their forward pass again when the backward pass comes to them.

    Torch's checkpoint does the work, with two differences: BatchNorm takes part in one batch once, where a plain
    checkpoint updates its running statistics twice, and no line of the model changes. It composes with
    `compress_saved`, which packs what lies outside of the blocks.

    Args:
        model: left as it is, but for the calls of the blocks.
        pattern: module names of the blocks, such as ``"layer*.*"``; of blocks inside one another the outermost counts.

    Raises:
        ConfigError: no module has such a name.

    Example:
        >>> net = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()), nn.Linear(8, 1))
        >>> with recompute_blocks(net, "0"):
        ...     net(torch.randn(32, 8)).mean().backward()
        >>> int(net[0][1].num_batches_tracked)
        1
    """
    names = [name for name, _ in model.named_modules() if name]
    matching = [name for name in names if fnmatchcase(name, pattern)]
    if not matching:
        raise ConfigError(f"pattern {pattern!r} matches no block: {did_you_mean(pattern, names)}")
    outermost = [n for n in matching if not any(n.startswith(f"{other}.") for other in matching)]
    blocks = list(dict.fromkeys(model.get_submodule(name) for name in outermost))
    before = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.forward = _again(block, block.forward)

    def undo() -> None:
        for block, forward in zip(blocks, before, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward

    return Handle(undo)


def _again(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _frozen_statistics(block)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return call


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """BatchNorm that does to copies of its statistics what it does, for checkpoint compares what is saved."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    before = [dict(m._buffers) for m in norms]
    for m, buffers in zip(norms, before, strict=True):
        m._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        for m, buffers in zip(norms, before, strict=True):
            m._buffers.update(buffers)
