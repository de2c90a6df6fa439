from collections import Counter

import numpy as np
import pytest

from netfit.errors import ConfigError
from netfit.targets.vta import (
    Config,
    Conv,
    Knobs,
    Timing,
    all_knobs,
    calibrate,
    estimate,
    features,
    lower,
    times,
    why_invalid,
)
from netfit.targets.vta._features import FEATURES
from netfit.targets.vta._rules import fold2d
from netfit.targets.vta._timing import BOARD_ROWS

CORE = Config()
DEVICE = (
    (112, 64, 64, 1, 1), (56, 64, 256, 1, 1), (56, 256, 64, 1, 1), (56, 256, 128, 1, 2), (28, 128, 512, 1, 1),
    (28, 512, 128, 1, 1), (28, 512, 256, 1, 2), (14, 256, 1024, 1, 1), (28, 512, 1024, 1, 2), (14, 1024, 256, 1, 1),
    (14, 1024, 512, 1, 2), (7, 512, 512, 3, 1), (7, 512, 2048, 1, 1), (14, 1024, 2048, 1, 2), (7, 2048, 512, 1, 1),
)  # fmt: skip
OTHER = (
    (54, 54, 64, 64, 3), (27, 27, 128, 128, 3), (14, 14, 128, 256, 3), (112, 112, 64, 128, 3), (56, 56, 128, 256, 3),
    (28, 28, 256, 512, 3), (14, 14, 512, 512, 3), (28, 28, 192, 32, 5), (28, 28, 192, 64, 1), (14, 14, 512, 48, 5),
    (7, 7, 832, 256, 1), (7, 7, 832, 128, 5), (350, 80, 64, 64, 3), (84, 20, 256, 256, 3), (42, 10, 512, 512, 3),
)  # fmt: skip


def test_the_published_share_of_valid_nests():
    """30 convolutions, 77,072 nests, 13.3 % valid, 4.0 % to 43.1 % of each."""
    convs = [
        Conv.of(CORE, c=c, h=h, w=h, k=k, r=r, s=r, stride=stride, padding=(r - 1) // 2)
        for h, c, k, r, stride in DEVICE
    ] + [Conv.of(CORE, c=c, h=h, w=w, k=k, r=r, s=r, padding=(r - 1) // 2) for h, w, c, k, r in OTHER]
    found, shares = Counter(), []
    for conv in convs:
        rules = [why_invalid(conv, k, CORE) or "ok" for k in all_knobs(conv)]
        found.update(rules)
        shares.append(rules.count("ok") / len(rules))
    assert found.total() == 77_072
    assert round(found["ok"] / found.total(), 3) == 0.133
    assert (round(min(shares), 3), round(max(shares), 3)) == (0.040, 0.431)


@pytest.mark.parametrize(
    ("rule", "conv", "knobs"),
    [
        ("two_vthreads", Conv(8, 8, 1, 2), Knobs(4, 8, 1, 1, 2, 2)),
        ("oc_vthread", Conv(8, 8, 1, 3), Knobs(4, 8, 1, 1, 2, 1)),
        ("h_vthread", Conv(9, 9, 1, 1), Knobs(3, 9, 1, 1, 1, 2)),
        ("inp_sram", Conv(64, 64, 1, 1), Knobs(64, 64, 1, 1)),
        ("wgt_sram", Conv(4, 4, 64, 32), Knobs(1, 4, 64, 32)),
        ("acc_sram", Conv(32, 32, 1, 4), Knobs(32, 32, 1, 4)),
        ("dma_inp_pad", Conv(8, 8, 4, 1, 3, 3, pad_h=1, pad_w=1), Knobs(8, 8, 2, 1)),
        ("dma_inp", Conv(8, 8, 4, 1), Knobs(2, 4, 2, 1)),
        ("dma_out", Conv(8, 8, 1, 2), Knobs(2, 4, 1, 2)),
        ("insn", Conv(1024, 1024, 2, 1, 3, 3), Knobs(1, 1, 1, 1)),
        ("pad_field", Conv(8, 8, 1, 1, 3, 40, pad_w=20), Knobs(1, 1, 1, 1)),
        (None, Conv(8, 8, 4, 2, 3, 3, pad_h=1, pad_w=1), Knobs(4, 8, 1, 1, 2, 1)),
    ],
)  # fmt: skip
def test_every_rule_names_its_nest(rule, conv, knobs):
    assert why_invalid(conv, knobs, CORE) == rule
    if rule:
        with pytest.raises(ConfigError, match=rule):
            lower(conv, knobs, CORE)
    else:
        lower(conv, knobs, CORE)


def test_few_micro_ops_are_a_rule_of_their_own():
    small = Config(log_uop=5)
    assert why_invalid(Conv(8, 8, 2, 2, 3, 3), Knobs(6, 6, 2, 2), small) == "uop"


def test_weights_of_single_words_are_a_burst():
    assert fold2d([(4, 9), (1, 1)]) == ([(4, 9)], 0)
    assert fold2d([(2, 100), (3, 10), (4, 2)])[1] == 2
    assert fold2d([(3, 70_000), (4, 1)])[1] == 1  # no field holds that stride


def test_the_instructions_allow_more_than_the_template():
    conv = Conv(8, 8, 4, 1, 3, 3, pad_h=1, pad_w=1)
    knobs = Knobs(8, 8, 2, 1)
    assert why_invalid(conv, knobs, CORE, "isa") is None
    assert len(lower(conv, knobs, CORE, strict="isa")) > len(lower(conv, Knobs(8, 8, 1, 1), CORE, strict="isa")) - 8


def test_cycles_match_the_board():
    found = np.array([times(lower(r.conv, r.knobs, CORE)).seconds for r in BOARD_ROWS])
    board = np.array([r.seconds for r in BOARD_ROWS])
    assert np.abs(found / board - 1).mean() <= 0.05
    ranks = [np.argsort(np.argsort(x)) for x in (found, board)]
    assert np.corrcoef(*ranks)[0, 1] >= 0.98


@pytest.mark.slow
def test_the_defaults_are_what_calibration_finds():
    fitted, default = calibrate(), Timing()
    for name in ("dma_row", "dma_bytes_per_cycle", "host_s"):
        assert getattr(fitted, name) == pytest.approx(getattr(default, name), rel=0.05)
    with pytest.raises(ConfigError, match="cannot determine"):
        calibrate(BOARD_ROWS[:4])


def test_the_estimate_ranks():
    conv = Conv.of(CORE, c=128, h=28, w=28, k=128, r=3, s=3, padding=1)
    valid = [k for k in all_knobs(conv) if why_invalid(conv, k, CORE) is None]
    exact = np.array([times(lower(conv, k, CORE)).cycles for k in valid])
    guess = estimate(conv, valid, CORE)
    ranks = [np.argsort(np.argsort(x)) for x in (exact, guess)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    assert features(conv, valid, CORE).shape == (len(valid), len(FEATURES))
    assert exact[np.argsort(guess)[:24]].min() <= 1.1 * exact.min()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Config.from_text("2x16"), "no VTA core '2x16'"),
        (lambda: Config(log_inp=20), "inp memory"),
        (lambda: Config(batch=0), "batch = 0"),
        (lambda: Config(clock_hz=0), "clock_hz"),
        (lambda: Conv(2, 2, 1, 1, 3, 3), "does not fit into 2x2"),
        (lambda: Conv(0, 2, 1, 1), "height = 0"),
        (lambda: Timing(dma_bytes_per_cycle=0), "bandwidth"),
    ],
)
def test_impossible_hardware(make, text):
    with pytest.raises(ConfigError, match=text):
        make()
