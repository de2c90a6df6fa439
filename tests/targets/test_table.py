"""The cost table: shapes, sums, selection, JSON."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from netfit.errors import ArtifactError, ConfigError
from netfit.targets import CostTable

seconds = st.floats(0, 1e3, allow_nan=False, width=64)


@st.composite
def tables(draw: st.DrawFn) -> CostTable:
    ops = draw(st.integers(0, 5))
    shape = (ops,) if draw(st.booleans()) else (draw(st.integers(1, 3)), ops)
    column = arrays.arrays(np.float64, shape, elements=seconds)
    return CostTable(
        names=tuple(f"layer{i}.conv" for i in range(ops)),
        kind=tuple(draw(st.sampled_from(["conv2d", "linear"])) for _ in range(ops)),
        time_s=draw(column),
        energy_j=draw(st.none() | column),
        utilization=draw(st.none() | column),
        bytes=draw(st.dictionaries(st.sampled_from(["dram", "l2"]), column)),
        breakdown=draw(st.dictionaries(st.sampled_from(["compute", "memory"]), column)),
        source="drawn",
    )


@given(tables())
def test_json_round_trip_is_exact(table: CostTable) -> None:
    again = CostTable.from_json(json.loads(json.dumps(table.to_json())))
    assert again.to_json() == table.to_json()
    if len(table):
        np.testing.assert_array_equal(again.time_s, table.time_s)


@given(tables())
def test_groups_of_kinds_add_up_to_the_total(table: CostTable) -> None:
    parts = [table.group(f"kind:{k}").total() for k in set(table.kind)]
    np.testing.assert_allclose(sum(p.time_s for p in parts), table.total().time_s, rtol=1e-12, atol=1e-300)
    for level in table.bytes:
        np.testing.assert_allclose(sum(p.bytes[level] for p in parts), table.total().bytes[level], rtol=1e-12)


def small(**more: object) -> CostTable:
    return CostTable(("a.conv", "a.fc"), ("conv2d", "linear"), np.array([1.0, 2.0]), **more)


def test_exact_targets_leave_the_interval_out() -> None:
    total = small(energy_j=[0.5, 0.25]).total()
    assert (total.time_s, total.lo_s, total.hi_s, total.energy_j) == (3.0, 3.0, 3.0, 0.75)


def test_rows_are_plain_and_configurations_are_picked() -> None:
    row = small(bytes={"dram": [8, 9]}).rows()[1]
    assert row == {"name": "a.fc", "kind": "linear", "time_s": 2.0, "lo_s": 2.0, "hi_s": 2.0, "bytes.dram": 9.0}
    swept = CostTable(("a",), ("linear",), np.array([[1.0], [2.0], [3.0]]))
    assert swept.rows(1)[0]["time_s"] == 2.0
    np.testing.assert_array_equal(swept.total().time_s, [1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match="3 configurations"):
        swept.rows()


def test_group_takes_every_column_along() -> None:
    part = small(utilization=[0.1, 0.2], breakdown={"compute": [1.0, 1.5]}).group("*.fc")
    assert part.names == ("a.fc",)
    assert part.utilization == [0.2]
    assert part.breakdown["compute"] == [1.5]
    with pytest.raises(ConfigError, match=r"'b\.fc'; did you mean 'a\.fc'"):
        small().group("b.fc")


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"time_s": [1.0]}, "time_s has shape"),
        ({"time_s": [1.0, -1.0]}, "negative"),
        ({"time_s": [1.0, np.nan]}, "NaN"),
        ({"time_s": [1.0, 2.0], "bytes": {"dram": [1.0]}}, r"bytes\.dram has shape"),
        ({"time_s": [[[1.0, 2.0]]]}, "time_s has shape"),
        ({"time_s": [1.0, 2.0], "kind": ("conv2d",)}, "2 names but 1 kinds"),
    ],
)
def test_bad_columns_are_named(columns: dict, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        CostTable(**{"names": ("a", "b"), "kind": ("conv2d", "linear"), **columns})


@pytest.mark.parametrize("obj", [3, {}, {"names": 1}, {**small().to_json(), "x": 1}, {**small().to_json(), "bytes": 1}])
def test_damaged_json_is_an_artifact_error(obj: object) -> None:
    with pytest.raises(ArtifactError, match="not a cost table"):
        CostTable.from_json(obj)
