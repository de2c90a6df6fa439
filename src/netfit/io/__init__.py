"""Files that netfit writes and reads: atomic, bounded, checked, and never pickle."""

from ._artifact import Artifact, read_artifact, write_artifact
from ._atomic import read_json, remove_temporaries, write_bytes, write_json
from ._foreign import StandIn, read_torch

__all__ = [
    "Artifact",
    "StandIn",
    "read_artifact",
    "read_json",
    "read_torch",
    "remove_temporaries",
    "write_artifact",
    "write_bytes",
    "write_json",
]
