"""Where rows come from: tables on disk, text that still grows, standard input, a Prometheus server.

All of them give `netfit.detect.Frame` after `Frame`, each with the columns that were there. No pandas is needed;
Parquet needs pyarrow.
"""

from netfit.detect.inputs._prometheus import Prometheus, column_name
from netfit.detect.inputs._read import read_frames, read_whole
from netfit.detect.inputs._write import write_parquet, write_table

__all__ = ["Prometheus", "column_name", "read_frames", "read_whole", "write_parquet", "write_table"]
