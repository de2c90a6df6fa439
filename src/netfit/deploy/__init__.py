"""Files that compute what the model computes, run by OpenVINO or ONNX Runtime, and what they really execute."""

from ._convert import to_onnx
from ._export import Exported, export
from ._fidelity import Fidelity, Substituted, fidelity, verify
from ._grid import Grid
from ._probe import Probe
from ._qdq import QuantSpec, quantize
from ._reslice import reslice
from ._sessions import ExecutedLayer, Session, open_session

__all__ = [
    "ExecutedLayer",
    "Exported",
    "Fidelity",
    "Grid",
    "Probe",
    "QuantSpec",
    "Session",
    "Substituted",
    "export",
    "fidelity",
    "open_session",
    "quantize",
    "reslice",
    "to_onnx",
    "verify",
]
