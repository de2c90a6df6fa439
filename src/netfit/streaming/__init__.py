"""What every stage that works on a stream needs: windows from blocks of any size, and state that survives a restart.

The axis of time comes first: rows of a table, samples (n, channels) of a sound. A stage gives the same result however
its input is cut into blocks; it hands out its state as a mapping of numpy arrays and JSON values, and takes it back.

- `Frames` turns blocks into overlapping windows.
- `OverlapAdd` puts overlapping windows together again.
- `save_state` and `load_state` keep a state as one artifact, written whole or not at all, without torch.
- `Stateful` is what such a stage looks like.
"""

from netfit.streaming._frames import Frames, OverlapAdd
from netfit.streaming._state import State, Stateful, load_state, save_state

__all__ = ["Frames", "OverlapAdd", "State", "Stateful", "load_state", "save_state"]
