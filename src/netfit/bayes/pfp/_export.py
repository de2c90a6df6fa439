"""The pass as an ONNX file."""

from pathlib import Path
from typing import Any

import torch

from netfit.env import quiet
from netfit.errors import ConfigError, UnsupportedLayerError, require
from netfit.io import write_bytes

from ._module import PFP
from ._trace import Answer, Frozen

__all__ = ["export_pfp", "onnx_proto"]

_MOMENTS = ("logits_mean", "logits_var", "logits_cov")  # plain "mean" would clash with the operator of that name
_ANSWER = ("probs", "total", "aleatoric", "epistemic")


def export_pfp(pfp: PFP, path: str | Path, samples: int) -> None:
    """Write what `PFP.export` promises."""
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConfigError(f"{path} must end in .onnx")
    if samples == 1 or samples < 0:
        raise ConfigError(f"samples={samples}: 0 for moments only, or at least 2 draws")
    write_bytes(path, onnx_proto(pfp, samples).SerializeToString())


def onnx_proto(pfp: PFP, samples: int = 0, batch_size: int | None = None) -> Any:
    """The pass as an ``onnx.ModelProto``, for any batch or for one size."""
    require("onnx", "export")
    require("onnxscript", "export")
    moments = _MOMENTS if pfp.head is not None else _MOMENTS[:2]
    names = [*moments, *(_ANSWER if samples else ())]
    module: torch.nn.Module = Frozen(pfp)
    if samples:
        with torch.no_grad():
            classes = module(torch.zeros(2, *pfp.shape))[0].shape[1]
        module = Answer(module, classes, samples)  # type: ignore[arg-type]
    example = torch.zeros(batch_size or 2, *pfp.shape)
    shapes = None if batch_size else {"x": {0: torch.export.Dim("batch")}}
    try:
        with torch.no_grad(), quiet("torch.onnx"):
            program = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)
            made = torch.onnx.export(
                program, dynamo=True, optimize=True, input_names=["x"], output_names=names, verbose=False
            )
    except Exception as e:  # the exporter raises many unrelated types for "there is no form of this"
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise UnsupportedLayerError(f"the pass has no ONNX form: {reason}") from e
    assert made is not None
    return made.model_proto
