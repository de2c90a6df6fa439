"""``netfit analog order`` and ``netfit analog program``: a trained network on an array and in resistive memory."""

import json

import pytest

from netfit.cli._analog_hardware import _median, _times
from netfit.errors import ConfigError

QUICK = ("--data", "digits", "--epochs", 3, "--test-samples", 200)


@pytest.fixture
def trained(netfit, tmp_path):
    """A saved network, so that a command need not train one."""
    from netfit import surgery
    from netfit.data import load
    from netfit.models import build
    from netfit.train import fit

    net, train = build("mlp", in_shape=(1, 8, 8)), load("digits")
    x, y = train.tensors()
    fit(net, (x, y), epochs=5, lr=3e-3, batch_size=32, weight_decay=0, seed=0, optimizer="adam", precision="fp32")
    surgery.save(net, tmp_path / "net", spec="mlp", example_inputs=[x[:1]], num_classes=10)
    return tmp_path / "net"


def test_order_leaves_numbers_orders_and_a_page(netfit, tmp_path):
    where = tmp_path / "run"
    done = netfit("analog", "order", "mlp", *QUICK, "--overdrive", 2, "--random-orders", 2, "--run", where, "--json")
    assert done.status == 0, done.err
    result = json.loads((where / "result.json").read_text())
    assert (result["kind"], result["task"], result["mac"]) == ("analog-hardware", "order", {"overdrive": 2.0})
    assert len(result["random"]) == 2 and all(0 <= result[k] <= 1 for k in ("digital", "natural", "balanced"))
    orders = json.loads((where / "orders.json").read_text())
    assert set(orders) == {"fc1", "fc2", "fc3"} and sorted(orders["fc1"][0]) == list(range(64))
    page = (where / "report.html").read_text()
    assert "balanced order" in page and "<svg" in page


def test_program_scores_chips_as_they_age(netfit, trained, tmp_path):
    where = tmp_path / "run"
    arguments = ("analog", "program", trained, *QUICK, "--times", "0,86400", "--chips", 2, "--run", where)
    done = netfit(*arguments, "--json")
    assert done.status == 0, done.err
    facts = done.json
    assert facts["times"] == [0.0, 86400.0] and len(facts["plain"]) == len(facts["compensated"]) == 2
    assert set(facts["errors"]) == {"fc1", "fc2", "fc3"}
    assert all(day > fresh for fresh, day in facts["errors"].values())
    assert sum(row[0] for row in facts["plain"]) / 2 > facts["digital"] - 0.1
    assert "2 chips" in (where / "report.html").read_text()
    again = netfit(*arguments)
    assert again.status == 0 and "drift compensated" in again.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("program", "mlp", *QUICK, "--device", "wan"), "did you mean 'wan2022'"),
        (("program", "mlp", *QUICK, "--times", "-1"), "--times '-1'"),
        (("program", "mlp", *QUICK, "--stuck-off", 0.7, "--stuck-on", 0.7), "more than all cells"),
        (("order", "mlp", *QUICK, "--gain", 0.1, "--overdrive", 2), "--overdrive 2"),
        (("order", "mlp", *QUICK, "--rows", 0), "rows"),
    ],
)
def test_bad_input_is_status_2(netfit, arguments, words):
    done = netfit("analog", *arguments)
    assert done.status == 2 and words in done.err and "Traceback" not in done.err


def test_parts():
    assert _times("3600,0,3600") == [0.0, 3600.0]
    with pytest.raises(ConfigError, match="seconds from 0"):
        _times("a day")
    assert _median([1, 2, 4]) == 2 and _median([1, 2, 4, 8]) == 3
