"""The page of a pipeline comparison, and its two drawings."""

import re
import xml.etree.ElementTree as ET

import pydantic
import pytest

from netfit.report import plots, render
from netfit.report._pipeline import pipeline_report

RESULT = {
    "model": "gpt-7b",
    "devices": 2,
    "comparisons": [
        {
            "microbatches": 4,
            "rows": [
                {
                    "network": "ib",
                    "schedule": "1f1b",
                    "formula": 3.0,
                    "table": 3.0,
                    "simulated": 3.5,
                    "rank_simulated": 2,
                },
                {"network": "ib", "schedule": "zb-v", "simulated": 2.5, "rank_simulated": 1, "break_even": 2e9},
            ],
            "sweep": {"ib": {"bytes_per_s": [1e9, 4e9], "seconds": {"1f1b": [3.0, 3.0], "zb-v": [4.0, 2.0]}}},
            "flips": {
                "ib": [{"from_bytes_per_s": 0, "schedule": "1f1b"}, {"from_bytes_per_s": 2e9, "schedule": "zb-v"}]
            },
            "verdicts": ["ib: 1f1b wins below 2 GB/s, zb-v above 2 GB/s"],
        }
    ],
    "timelines": [
        {
            "schedule": "zb-v",
            "devices": 2,
            "makespan_s": 2.5,
            "bars": [[0, "F", 0, 0, 0.0, 1.0], [1, "P", 1, 0, 1.0, 2.5]],
            "memory": [[[0.0, 2.5], [1e9, 0.0]], [[1.0, 2.5], [1e9, 0.0]]],
        }
    ],
    "notes": ["m=4: dualpipe left out"],
    "invocation": "netfit pipeline compare --devices 2",
}


def texts(svg: str) -> set[str]:
    return {e.text or "" for e in ET.fromstring(svg).iter("text")}


def test_the_page_tells_who_wins_and_where_it_changes() -> None:
    page = render(pipeline_report(RESULT))
    assert "zb-v above 2 GB/s" in page and "2.00 GB/s" in page
    assert page.count("<svg") == 3 and "GB of activations" in page
    assert "dualpipe left out" in page and "netfit pipeline compare --devices 2" in page
    assert page.index("zb-v</td>") < page.index("1f1b</td>")  # the fastest first


def test_an_empty_result_is_a_page_and_a_wrong_one_an_error() -> None:
    assert "Pipeline schedules of equal stages" in render(pipeline_report({}))
    with pytest.raises(pydantic.ValidationError):
        pipeline_report({"timelines": [{"bars": [["x"]]}]})


def test_timeline_has_a_row_for_every_device_and_a_colour_for_every_kind() -> None:
    kinds = {"F": "forward", "X": "backward"}
    svg = plots.timeline([(0, "F", 0.0, 1.0), (2, "X", 1.0, 3.0)], kinds, rows=4, xlabel="seconds")
    assert {"0", "1", "2", "3", "forward", "backward", "seconds"} <= texts(svg)
    assert set(re.findall(r"(?<!,)#[0-9a-f]{6}\b", svg)) == set()


def test_race_leaves_out_who_is_never_near_the_lead() -> None:
    x = [1e9, 1e10]
    svg = plots.race(
        {"a": (x, [1.0, 2.0]), "b": (x, [2.0, 1.0]), "slow": (x, [5.0, 5.0])}, flips=[3e9], xlabel="bytes/s"
    )
    assert {"a", "b", "1G", "10G"} <= texts(svg) and "slow" not in texts(svg)
