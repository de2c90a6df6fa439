"""Labelled data of clusters that change: recorded from real processes, or injected into what is there.

`record` starts processes in groups, lets some leak, spin, hang or die, some leave and others join, and reads their
counters. `inject` puts the seven kinds of anomalies of the DeepHYDRA paper's generator into a table. `judge` compares
alerts with faults.
"""

from netfit.detect.fleet._inject import CATEGORIES, Injected, inject
from netfit.detect.fleet._judge import Judged, judge
from netfit.detect.fleet._record import FAULTS, Fault, Recording, read_recording, record, write_recording

__all__ = [
    "CATEGORIES",
    "FAULTS",
    "Fault",
    "Injected",
    "Judged",
    "Recording",
    "inject",
    "judge",
    "read_recording",
    "record",
    "write_recording",
]
