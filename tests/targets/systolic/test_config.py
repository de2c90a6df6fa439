"""An array that cannot be is refused in one line with field, value and range."""

import math

import pytest

from netfit.errors import ConfigError
from netfit.targets import SystolicArray, parse
from netfit.targets.systolic import EnergyModel, SystolicConfig


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("rows", 0, "from 1 to 16384"),
        ("cols", -3, "from 1 to 16384"),
        ("rows", 8.5, "from 1 to 16384"),
        ("rows", True, "from 1 to 16384"),
        ("accum_rows", 1, "from 2"),
        ("fifo_depth", 0, "from 1"),
        ("weight_bits", 65, "from 1 to 64"),
        ("act_bits", "8", "from 1 to 64"),
        ("buffer_bytes", 0, "from 1"),
        ("clock_hz", math.nan, "finite numbers above 0"),
        ("dram_bytes_per_s", -1.0, "finite numbers above 0"),
        ("dataflow", "rs", "'ws', 'os', 'is'"),
        ("weight_load", "none", "'overlapped', 'serial'"),
        ("group_mode", "dense", "'serial', 'block_diagonal'"),
        ("energy", 3, "an EnergyModel"),
    ],
)
def test_bad_field(field, value, allowed):
    with pytest.raises(ConfigError) as e:
        SystolicConfig(**{"rows": 4, "cols": 4, field: value})
    text = str(e.value)
    assert text.startswith(f"{field} = {value!r}") and allowed in text and "\n" not in text


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "6"])
def test_bad_energy(value):
    with pytest.raises(ConfigError, match=r"energy\.buffer = .*allowed are finite numbers from 0"):
        EnergyModel(buffer=value)


@pytest.mark.parametrize(
    ("config", "compat", "message"),
    [
        ({"dataflow": "os"}, "camuy", "allowed are 'ws' and 'overlapped'"),
        ({"weight_load": "serial"}, "camuy", "allowed are 'ws' and 'overlapped'"),
        ({"group_mode": "block_diagonal"}, "scalesim", "allowed is 'serial'"),
        ({"dram_bytes_per_s": 1e9}, "camuy", "the reference waits for no memory"),
    ],
)
def test_a_reference_is_not_asked_for_what_it_cannot_do(config, compat, message):
    with pytest.raises(ConfigError, match=message):
        SystolicArray(SystolicConfig(4, 4, **config), compat)


def test_target_by_name():
    target = parse("systolic:8x16, dataflow=os, act_bits=4, dram_bytes_per_s=1e9, buffer_bytes=65536")
    assert isinstance(target, SystolicArray)
    wanted = SystolicConfig(8, 16, dataflow="os", act_bits=4, dram_bytes_per_s=1e9, buffer_bytes=65536)
    assert target.config == wanted and target.channel_step == 16
    assert parse("systolic:8x16,compat=camuy").fingerprint()["compat"] == "camuy"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("systolic", "give rows x columns"),
        ("systolic:16", "give rows x columns"),
        ("systolic:16x16x2", "give rows x columns"),
        ("systolic:0x16", "rows = 0"),
        ("systolic:16x16,dataflo=os", "did you mean 'dataflow'"),
        ("systolic:16x16,rows=3", "no setting"),
        ("systolic:16x16,act_bits=0.5", "act_bits = '0.5'"),
        ("systolic:16x16,act_bits=inf", "act_bits = 'inf'"),
        ("systolic:16x16,clock_hz=fast", "clock_hz = nan"),
        ("systolic:16x16,compat=tpu", "compat = 'tpu'"),
    ],
)
def test_bad_names(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_precisions_are_those_the_multipliers_hold():
    wide, half, byte, odd = (SystolicArray(SystolicConfig(4, 4, weight_bits=b, act_bits=b)) for b in (32, 16, 8, 4))
    assert wide.precisions("conv2d") == ("fp32", "bf16", "int8")
    assert half.precisions("linear") == ("bf16", "int8")
    assert byte.precisions("linear") == ("int8",)
    assert odd.precisions("linear") == ("w4a4",)
    assert byte.precisions("add") == ("fp32",)


def test_the_device_says_its_peak():
    spec = SystolicArray(SystolicConfig(16, 8, clock_hz=5e8, dram_bytes_per_s=1e9)).spec
    assert spec.flops == {"int8": 2 * 16 * 8 * 5e8} and spec.bandwidth == {"dram": 1e9}
