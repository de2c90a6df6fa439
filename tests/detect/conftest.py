"""A small fleet with faults, as a table of channels."""

import numpy as np
import pytest

from netfit.detect import Frame

STEADY = 320  # rows before the first fault: the temporal stage has warmed up


def fleet(rows=420, nodes=10, groups=2, seed=0):
    """Channels ``rack=r,node=n,metric=m`` that follow a load; the load is the rack's own."""
    rng = np.random.default_rng(seed)
    names, columns = [], []
    for rack in range(groups):
        load = 50 + 10 * np.sin(np.arange(rows) / 15 + rack) + rng.normal(0, 0.5, rows)
        for node in range(nodes):
            for metric, factor in (("cpu", 1.0), ("net", 3.0)):
                names.append(f"rack=r{rack},node=n{rack}{node},metric={metric}")
                columns.append(factor * load + rng.normal(0, factor, rows) + rng.normal(0, 2))
    return Frame(np.arange(rows, dtype=float), names, np.stack(columns, 1))


def with_faults(frame):
    """One node's network goes to zero, another one's cpu climbs, and a whole rack turns noisy."""
    values, names = frame.values.copy(), list(frame.columns)
    rows = np.arange(len(frame))
    values[STEADY + 10 :, names.index("rack=r0,node=n03,metric=net")] = 0
    climb = np.clip(rows - (STEADY + 30), 0, 25) * 4.0
    values[:, names.index("rack=r1,node=n17,metric=cpu")] += climb
    values[rows % 17 == 3, names.index("rack=r0,node=n05,metric=cpu")] = np.nan
    return Frame(frame.times, names, values)


@pytest.fixture
def make_fleet():
    return fleet


@pytest.fixture
def faulty():
    """Faults begin at row 330."""
    return with_faults(fleet())
