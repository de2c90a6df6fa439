"""Files of torch's own format that other programs wrote: tensors and plain containers, never code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netfit.errors import ArtifactError

_MAX_BYTES = 4 << 30


class StandIn:
    """Takes the place of an object of a class that is known by name only; nothing of that class runs.

    Attributes:
        origin: dotted name of the class in the file.
    """

    origin = ""

    def __init__(self, *args: Any) -> None:
        """Ignore what the file would construct the object from."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the object's content."""


def read_torch(path: str | Path, known: Sequence[str] = ()) -> Any:
    """Read a ``.pt`` file that another program wrote with ``torch.save``, without running anything in it.

    Args:
        path: the file.
        known: dotted names of classes whose objects may stand in it; each becomes a `StandIn`.

    Raises:
        ArtifactError: the file is missing, damaged or too large, or asks for anything else; all of it is listed.
    """
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    path = Path(path)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ArtifactError(f"{path} holds {size} bytes; at most {_MAX_BYTES} are read")
        foreign = sorted(set(get_unsafe_globals_in_checkpoint(str(path))) - set(known))
        if foreign:
            raise ArtifactError(
                f"{path} asks for {', '.join(foreign)}: nothing of it was run, and the file is not read"
            )
        stand_ins = [(type("StandIn", (StandIn,), {"origin": name}), name) for name in known]
        with safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ArtifactError:
        raise
    except Exception as e:  # the unpickler, the zip reader and the file system each raise types of their own
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise ArtifactError(f"{path} is not a readable torch file: {reason}") from e
