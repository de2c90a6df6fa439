"""Noisy layers beside the public simulators of analog hardware: cost of a step, and moments of the device models.

LeNet-5 with BatchNorm, batch of 128, the same Gaussian noise behind each of its five layers; CPU seconds of one thread,
in turn, over the same network without noise. aihwkit's tiles run without converters and scaling, so that all compute
the same; its C++ tiles refuse the tensors of this torch. aihwkit-lightning wants an input range, and adds its noise in
training only. CrossSim is no package. Devices: 200,000 cells at five conductances, fresh, an hour and a day old.

    make peers && .venv-peers/bin/python -m benchmarks.analog_peers
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks._analog_nets import LeNet5, one_thread
from benchmarks._common import interleave, median_ratio, record
from benchmarks.analog_speed import infer, noisy, step
from netfit.analog.crossbar import Device, device

BATCH, REPEATS, STD = 128, 15, 0.3
CELLS, LEVELS, TIMES = 200_000, (0.2, 0.4, 0.6, 0.8, 1.0), (0.0, 3600.0, 86400.0)
LAYERS = "[cf]*[123]"


def main() -> None:
    """One table of costs, one of moments."""
    one_thread()
    rows = costs()
    by = {(r["simulator"], r["of"]): r["over netfit, pool"] for r in rows}
    best = {r["of"]: r["over netfit, exact"] for r in rows if r["simulator"] == "aihwkit, torch"}
    record(
        "analog_peers",
        rows,
        batch=BATCH,
        repeats=REPEATS,
        held={
            "training step of aihwkit >= 2.5 x netfit's (pool)": by["aihwkit, torch", "training step"] >= 2.5,
            "inference of aihwkit >= 3.8 x netfit's (pool)": by["aihwkit, torch", "inference"] >= 3.8,
            "inference of aihwkit >= 3 x netfit's (exact)": best["inference"] >= 3,
            "further ahead of lightning": all(
                by["aihwkit-lightning", w] >= by["aihwkit, torch", w] for w in ("training step", "inference")
            ),
        },
    )
    found = moments()
    record("analog_peers_devices", found, cells=CELLS, held={"within 1 %": all(r["within 1 %"] for r in found)})


def costs() -> list[dict[str, Any]]:
    """Of a training step and of inference, over the same without noise and over netfit's."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))
    nets: dict[str, Callable[[], nn.Module]] = {
        "none": lambda: LeNet5(bn=True),
        "netfit, pool": lambda: noisy(LeNet5(bn=True), x, LAYERS, "pool"),
        "netfit, exact": lambda: noisy(LeNet5(bn=True), x, LAYERS, "exact"),
        "aihwkit, torch": _aihwkit_torch,
        "aihwkit-lightning": _lightning,
    }
    rows = []
    for what, make in (("training step", lambda m: step(m, x, y)), ("inference", lambda m: infer(m, x))):
        seconds = interleave({n: make(net()) for n, net in nets.items()}, REPEATS, 3, time.process_time)
        for name in list(nets)[1:]:
            over = {b: median_ratio(seconds[name], seconds[b]) for b in ("none", "netfit, pool", "netfit, exact")}
            rows.append({"simulator": name, "of": what} | {f"over {b}": r.median for b, r in over.items()})
    return rows


def _aihwkit_torch() -> nn.Module:
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator.configs import TorchInferenceRPUConfig

    return convert_to_analog(LeNet5(bn=True), _bare(TorchInferenceRPUConfig()))


def _bare(config: Any) -> Any:
    """Tiles that add noise to their results and do nothing else."""
    from aihwkit.simulator.configs import BoundManagementType, NoiseManagementType

    f = config.forward
    f.inp_res = f.out_res = -1
    f.inp_bound = f.out_bound = 0.0
    f.noise_management, f.bound_management = NoiseManagementType.NONE, BoundManagementType.NONE
    f.out_noise, f.w_noise = STD, 0.0
    config.mapping.weight_scaling_omega = 0.0
    config.mapping.max_input_size = config.mapping.max_output_size = 0
    return config


def _lightning() -> nn.Module:
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig

    config = TorchInferenceRPUConfig()
    config.forward.inp_res = config.forward.out_res = -1
    config.forward.out_noise, config.pre_post.input_range.enable = STD, True
    config.mapping.max_input_size = 0
    return convert_to_analog(LeNet5(bn=True), config)


def moments() -> list[dict[str, Any]]:
    """Mean and spread of conductances, ours and theirs."""
    from aihwkit.inference import PCMLikeNoiseModel
    from aihwkit.inference.noise.reram import ReRamWan2022NoiseModel

    rows = []
    for ours, theirs, times in (
        (device("nandakumar2019"), PCMLikeNoiseModel(prog_noise_scale=1.0), TIMES),
        (device("wan2022"), ReRamWan2022NoiseModel(g_max=40.0), (1.0, 86400.0)),
    ):
        for level in LEVELS:
            for t_s in times:
                mean, std = _ours(ours, level * ours.g_max, t_s)
                their_mean, their_std = _theirs(theirs, level * ours.g_max, t_s)
                near = abs(mean / their_mean - 1) <= 0.01 and abs(std - their_std) <= 0.01 * their_mean
                rows.append(
                    {
                        "device": type(ours).__name__,
                        "uS asked": level * ours.g_max,
                        "seconds": t_s,
                        "mean": mean,
                        "aihwkit's mean": their_mean,
                        "std": std,
                        "aihwkit's std": their_std,
                        "within 1 %": near,
                    }
                )
    return rows


def _ours(cell: Device, asked: float, t_s: float) -> tuple[float, float]:
    draw, target = torch.Generator().manual_seed(0), torch.full((CELLS,), asked)
    found = cell.read(target, cell.program(target.clone(), draw), t_s, draw)
    return float(found.mean()), float(found.std())


def _theirs(model: Any, asked: float, t_s: float) -> tuple[float, float]:
    """One column of cells through aihwkit's own steps: program, draw drift exponents, drift and read."""
    torch.manual_seed(0)
    target = torch.full((CELLS,), asked)
    programmed = model.apply_programming_noise_to_conductance(target)
    drift = model.generate_drift_coefficients(target)
    found = model.apply_drift_noise_to_conductance(programmed, drift, t_s)
    return float(found.mean()), float(found.std())


if __name__ == "__main__":
    main()
