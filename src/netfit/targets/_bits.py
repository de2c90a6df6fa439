"""Which 1-bit layers are faster than int8 ones on this machine: measured, because their neighbours decide it too."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from netfit.deploy import Probe, Session, open_session
from netfit.kernels import toolchain
from netfit.surgery import Policy, Quantize, apply
from netfit.workload import Op

from ._measure import Measurement

PRECISIONS = ("w1a2", "w1a1")
LEAST_CHANNELS = 128  # of the input: with fewer, packing costs as much as the products
LEAST_SAVING = 0.03  # less is noise of a short measurement

Timer = Callable[[dict[str, Session]], Measurement]


def measurable(op: Op) -> bool:
    """Whether there is a 1-bit kernel for an operator, and a compiler to build it."""
    known = Quantize.of(PRECISIONS[0]).runs(op) and bool(op.params)
    return known and op.inputs[0].shape[1] >= LEAST_CHANNELS and toolchain("c++") is not None


def shape_of(op: Op) -> list[Sequence[int]]:
    """What the time of a convolution depends on."""
    spatial = [tuple(op.attrs[name]) for name in ("stride", "padding", "dilation")]
    return [op.inputs[0].shape[1:], op.params["weight"].shape, *spatial]


def bits_that_pay(op: Op, timed: Timer, threads: int) -> tuple[tuple[str, ...], bool]:
    """1-bit precisions in which a convolution between two int8 layers takes less time than in int8.

    Args:
        op: a convolution, see `measurable`.
        timed: times the sessions in turns, ``"int8"`` being the yardstick.
        threads: of a session.

    Returns:
        The precisions, widest first, and whether the measurement was noisy.
    """
    (channels, height, width), (outputs, _, *kernel), stride, padding, dilation = shape_of(op)
    # Between 1x1 layers, because a 1-bit layer reads and writes fp32 and its int8 neighbours then convert.
    layer = nn.Conv2d(channels, outputs, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))  # type: ignore[arg-type]
    first, last = nn.Conv2d(channels, channels, 1), nn.Conv2d(outputs, outputs, 1)
    net = nn.Sequential(first, nn.ReLU(), layer, nn.ReLU(), last).eval()
    x = torch.zeros(1, channels, height, width)
    probe = Probe(net, [x])
    sessions = {}
    for precision in ("int8", *PRECISIONS):
        policy = Policy({"0": Quantize(), "2": Quantize.of(precision), "4": Quantize()})
        sessions[precision] = open_session(probe.onnx(apply(net, policy, x)), "openvino", threads)
    found = timed(sessions).timings
    paying = tuple(p for p in PRECISIONS if found[p].ratio < 1 - LEAST_SAVING)
    return paying, any(found[p].noisy for p in PRECISIONS)
