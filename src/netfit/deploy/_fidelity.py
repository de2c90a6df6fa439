"""Does the file run as asked, and does it compute what the model computes?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ._export import Exported
from ._sessions import Session, open_session


@dataclass(frozen=True)
class Substituted:
    """A layer that a runtime executes at another precision than the file asks for.

    Attributes:
        name: call site.
        asked: precision of the policy.
        executed: precision read back from the runtime, ``"absent"`` when no kernel names the layer.
    """

    name: str
    asked: str
    executed: str


@dataclass(frozen=True)
class Fidelity:
    """How well a runtime reproduces a model.

    Attributes:
        agreement: share of samples with the same most likely class (axis 1 of the first output).
        max_abs_diff: largest difference of any output value.
        substituted: layers not executed as asked.
    """

    agreement: float
    max_abs_diff: float
    substituted: tuple[Substituted, ...]


def fidelity(exported: Exported, runtime: str | None = None, threads: int = 1) -> list[Substituted]:
    """Compare the precision asked of each layer with the one a runtime reports to execute.

    Args:
        exported: from `export`.
        runtime: default: the one it was exported for.
        threads: threads of the session; runtimes may choose other kernels for more.
    """
    return _substituted(exported, open_session(exported.path, runtime or exported.runtime, threads))


def _substituted(exported: Exported, session: Session) -> list[Substituted]:
    executed: dict[str, str] = {}
    found = []
    for layer in session.layers():
        for name in (layer.name, *layer.fused):
            executed.setdefault(name, layer.precision)
        if layer.precision == "bf16" and layer.kind != "Reorder" and layer.name not in exported.asked:
            found.append(Substituted(layer.name, "fp32", "bf16"))
    for name, asked in exported.asked.items():
        precision = executed.get(name) or _merged(name, executed)
        if precision != asked:
            found.append(Substituted(name, asked, precision))
    return found


def _merged(name: str, executed: dict[str, str]) -> str:
    """Precision of the kernel that bears the name of the layer's bias: a product and its bias became one."""
    helpers = {p for n, p in executed.items() if n.startswith(f"{name}/Add_")}
    return helpers.pop() if len(helpers) == 1 else "absent"


def verify(
    exported: Exported,
    model: nn.Module,
    x: torch.Tensor | Sequence[torch.Tensor],
    runtime: str | None = None,
    threads: int = 1,
) -> Fidelity:
    """Run the file and the model on the same inputs.

    Args:
        exported: from `export`.
        model: the model it was exported from, with its policy: its own rounding is the reference.
        x: inputs of shape (samples, ...), one tensor for each input of the network.
        runtime: default: the one it was exported for.
        threads: threads of the session.
    """
    session = open_session(exported.path, runtime or exported.runtime, threads)
    inputs = [x] if isinstance(x, torch.Tensor) else list(x)
    ours = session.run([t.numpy() for t in inputs])
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    with torch.no_grad():
        result = model(*inputs)
    for module, training in modes:
        module.training = training
    theirs = [t.numpy() for t in ([result] if isinstance(result, torch.Tensor) else result)]
    same = (ours[0].argmax(1) == theirs[0].argmax(1)) if ours[0].ndim > 1 else np.ones(1)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
    return Fidelity(float(same.mean()), difference, tuple(_substituted(exported, session)))
