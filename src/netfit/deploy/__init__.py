"""Files that compute what the model computes, run by OpenVINO or ONNX Runtime, and what they really execute."""

from ._convert import to_onnx
from ._export import Exported, export
from ._fidelity import Fidelity, Substituted, fidelity, verify
from ._qdq import Grid, QuantSpec, quantize
from ._sessions import ExecutedLayer, Session, open_session

__all__ = [
    "ExecutedLayer",
    "Exported",
    "Fidelity",
    "Grid",
    "QuantSpec",
    "Session",
    "Substituted",
    "export",
    "fidelity",
    "open_session",
    "quantize",
    "to_onnx",
    "verify",
]
