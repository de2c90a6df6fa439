"""Tables to files, as `read_frames` reads them."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from netfit.detect._frame import Frame
from netfit.errors import require
from netfit.io import write_bytes

__all__ = ["write_parquet", "write_table"]


def write_table(path: str | Path, frame: Frame) -> None:
    """Write a wide table: Parquet or CSV, by the ending of the name.

    Args:
        path: file.
        frame: rows.

    Raises:
        ArtifactError: it cannot be written.
        MissingExtraError: Parquet without pyarrow.
    """
    if str(path).endswith((".parquet", ".pq")):
        write_parquet(path, frame)
        return
    lines = [",".join(["time", *map(_quoted, frame.columns)])]
    for moment, row in zip(frame.times.tolist(), frame.values.tolist(), strict=True):
        lines.append(",".join([repr(moment), *("" if v != v else repr(v) for v in row)]))
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def write_parquet(path: str | Path, frame: Frame, notes: Mapping[str, str] | None = None) -> None:
    """Write a wide table as Parquet, compressed.

    Args:
        path: file.
        frame: rows.
        notes: key-value texts of the file.
    """
    pyarrow, parquet = require("pyarrow", "detect"), require("pyarrow.parquet", "detect")
    columns = {"time": frame.times, **dict(zip(frame.columns, np.ascontiguousarray(frame.values.T), strict=True))}
    table = pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})
    buffer = BytesIO()
    parquet.write_table(table.replace_schema_metadata(dict(notes or {})), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n') else name
