"""`SaveAs`: the policy's word for how an operation's saved tensors are kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from netfit.seeding import derive
from netfit.surgery import CallHook, Site, Stage, Technique, install

from ._kinds import KINDS
from ._saver import Saver, refuse_compilation
from .codecs import Codec, parse

__all__ = ["SaveAs"]


@dataclass(frozen=True)
class SaveAs(Technique):
    """Keep what an operation saves for its backward pass by a codec; the forward pass stays as it is, bit for bit.

    A codec that does not fit an operation keeps its tensors: pooling and block sparsity are for the inputs of
    convolutions and linear layers. ReLU, dropout and pooling keep bits or nothing, without an error, whatever lossy
    codec is asked for. Rounding draws depend on the layer and on a counter in the state_dict, so a resumed training
    repeats them.

    Args:
        codec: a word of `netfit.memory.codecs.parse`, such as ``"q4"``, ``"pool2"``, ``"bsr10"`` or ``"lossless"``.

    Example:
        >>> from netfit.surgery import Policy, apply
        >>> net, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), torch.randn(256, 64)
        >>> small = apply(net, Policy({"*": SaveAs("q4")}), x)
        >>> bool((small(x) == net(x)).all())
        True
    """

    codec: str = "q4"

    name: ClassVar[str] = "save_as"
    stage: ClassVar[Stage] = Stage.MEMORY
    mechanism: ClassVar = "hook"
    kinds: ClassVar[frozenset[str] | None] = KINDS

    def __post_init__(self) -> None:
        parse(self.codec)

    @classmethod
    def rewrite(
        cls, model: nn.Module, chosen: Mapping[Site, "SaveAs"], example_inputs: tuple[torch.Tensor, ...]
    ) -> nn.Module:
        """Put a hook around every chosen operation."""
        saver = Saver()
        hooks: dict[tuple[str, int | None], CallHook] = {
            site.key: SaveHook(parse(t.codec), site.kind, index, saver)
            for index, (site, t) in enumerate(chosen.items())
        }
        install(model, hooks)
        return model


class SaveHook(CallHook):
    """Opens the saver around one operation while gradients are recorded."""

    step: torch.Tensor

    def __init__(self, codec: Codec, kind: str, index: int, saver: Saver) -> None:
        super().__init__()
        self.codec, self.kind, self.index, self.saver = codec, kind, index, saver
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def around(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the operation, packing what it saves."""
        if not torch.is_grad_enabled() or torch.compiler.is_exporting():
            return func(*args, **kwargs)
        refuse_compilation()
        seed = derive(int(self.step), "saved", self.index)
        self.step += 1
        return self.saver.run(self.codec, self.kind, func, args, kwargs, seed)
