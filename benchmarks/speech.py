"""Beamformers beside peers, mask networks on unseen rooms, words, low-bit speed, streams; one thread.

``python -m benchmarks.speech beamformers|speed|stream FOLDER|masks FOLDER [NAME=NETWORK ...]|words FOLDER [NAME=...]``

FOLDER holds scenes of ``netfit speech simulate``; NAME=NETWORK are folders of ``netfit speech train``, the built-in one
by default. The peers of the first part are looked for on the path and left out, with the reason, where they are not:
``pip install --target build/peers --no-deps espnet torch-complex asteroid``, then ``PYTHONPATH=build/peers``.
Times are CPU seconds of this process: other users of the machine hardly change them.
"""

import importlib
import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._common import interleave, record
from netfit.deploy import export, open_session
from netfit.kernels.dense import ConvShape, Prepared
from netfit.speech import (
    MaskEstimator,
    PackedNetwork,
    SceneFolder,
    StreamingEnhancer,
    enhance,
    files,
    functional,
    load_model,
    save_model,
    scores,
)
from netfit.surgery import Quantization

MICS, BINS, FS = 6, 513, 16000
REPEATS = 30


def row(check: str, value: float, goal: float, most: bool = False) -> dict[str, Any]:
    """One line of the table."""
    return {"check": check, "value": value, "goal": goal, "met": value <= goal if most else value >= goal}


def beamformers() -> None:
    """Item 13: largest relative difference from each peer, over all frequencies."""
    g = torch.Generator().manual_seed(0)
    y = torch.randn(BINS, MICS, 200, dtype=torch.complex128, generator=g)
    s = torch.randn(BINS, MICS, 1, dtype=torch.complex128, generator=g)
    Rn, Rs = y @ y.mH / 200, s @ s.mH + 0.01 * torch.eye(MICS)
    ours = {"mvdr": functional.mvdr(Rs, Rn), "gev": functional.gev(Rs, Rn)}
    rows, missing = [], {}
    for peer, load in {"espnet": espnet, "asteroid": asteroid}.items():
        try:
            theirs = load(Rs, Rn)
        except ImportError as e:
            missing[peer] = str(e)
            continue
        rows += [
            row(f"{name} beside {peer}", difference(name, ours[name], w), 1e-3, most=True) for name, w in theirs.items()
        ]
    v = (Rn @ ours["gev"][..., None])[..., 0]
    normal = functional.pan(ours["gev"], Rn)
    rows.append(
        row("pan: |w^H v - v_ref|", float(((normal.conj() * v).sum(-1) - v[:, 0]).abs().max()), 1e-6, most=True)
    )
    record("speech_beamformers", rows, missing=missing)


def difference(name: str, a: Tensor, b: Tensor) -> float:
    """Relative distance of filters; phase and size of GEV at a frequency are free and aligned first."""
    if name == "gev":
        b = (b.conj() * a).sum(-1, keepdim=True) / b.abs().square().sum(-1, keepdim=True) * b
    return float((torch.linalg.vector_norm(a - b, dim=-1) / torch.linalg.vector_norm(a, dim=-1)).max())


def espnet(Rs: Tensor, Rn: Tensor) -> dict[str, Tensor]:
    """Filters of ESPnet."""
    peer = importlib.import_module("espnet2.enh.layers.beamformer")
    first = torch.zeros(MICS, dtype=Rs.dtype)
    first[0] = 1
    return {
        "mvdr": peer.get_mvdr_vector(Rs[None], Rn[None], first[None])[0],
        "gev": peer.get_gev_vector(Rn[None], Rs[None], mode="evd")[0],
    }


def asteroid(Rs: Tensor, Rn: Tensor) -> dict[str, Tensor]:
    """Filters of asteroid; its module is loaded alone, for the package wants torchaudio."""
    found = importlib.util.find_spec("asteroid")
    if found is None or not found.submodule_search_locations:
        raise ImportError("asteroid is not installed")
    spec = importlib.util.spec_from_file_location(
        "asteroid_beamforming", Path(found.submodule_search_locations[0]) / "dsp" / "beamforming.py"
    )
    assert spec is not None and spec.loader is not None
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    R = [x.permute(1, 2, 0)[None] for x in (Rs, Rn)]
    unit = torch.eye(MICS, dtype=Rs.dtype)[None, :, None].expand(1, MICS, BINS, MICS)  # hears each microphone alone
    heard = peer.SoudenMVDRBeamformer()(unit, *R, ref_mic=0)[0]
    return {"mvdr": heard.conj(), "gev": peer.GEVBeamformer.compute_beamforming_vector(*R)[0].T}


def speed() -> None:
    """Item 16: one layer, the whole network, and its file."""
    rows = []
    for batch in (1, 4, 16, 64):
        rows += layers(batch)
    torch.manual_seed(0)
    model = MaskEstimator().eval()
    x = torch.randn(2048, len(model.mean), generator=torch.Generator().manual_seed(0))
    low = {bits: model.quantized(bits, x).eval() for bits in ("int8", "w1a8", "w1a1")}
    for m in low.values():
        state = Quantization.of(m.net)
        assert state is not None
        state.freeze()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        export(low["int8"].net, (x[:1],), place / "m.onnx", runtime="onnxruntime")
        session = open_session(place / "m.onnx", "onnxruntime")
        for batch in (1, 64):
            rows += whole(model, {bits: PackedNetwork(m) for bits, m in low.items()}, session, x[:batch])
        save_model(model, place / "fp32")
        save_model(low["w1a8"], place / "w1a8")
        size = {name: (place / name / "model.safetensors").stat().st_size for name in ("fp32", "w1a8")}
    rows.append(row("file of w1a8 / file of fp32", size["w1a8"] / size["fp32"], 1 / 20, most=True))
    record("speech_speed", rows, note="times faster than torch fp32: best of 30 interleaved repeats, CPU time")


def faster(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """How many times faster than "torch" each call is; turns of several calls, the best turn counts."""

    def turn(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: [call() for _ in range(20)] and None

    with torch.no_grad():
        found = interleave({k: turn(c) for k, c in calls.items()}, REPEATS, clock=time.process_time)
    best = {name: min(seconds) for name, seconds in found.items()}
    return {name: best["torch"] / s for name, s in best.items() if name != "torch"}


def layers(batch: int, n: int = 1024) -> list[dict[str, Any]]:
    """A dense layer of 1024 x 1024."""
    g = torch.Generator().manual_seed(0)
    dense, x = nn.Linear(n, n), torch.randn(batch, n, generator=g)
    signs = torch.where(torch.randn(n, n, 1, 1, generator=g) > 0, 1, -1).to(torch.int8)
    shape = ConvShape.gemm(n, batch, n)
    bits, int8 = Prepared(shape, signs, precision="bits"), Prepared(shape, signs, precision="int8")
    codes = torch.randint(0, 2, (1, n, 1, batch), dtype=torch.uint8, generator=g)
    whole8 = torch.randint(-128, 128, (1, n, 1, batch), dtype=torch.int8, generator=g)
    found = faster({"torch": lambda: dense(x), "1 bit": lambda: bits(codes), "int8": lambda: int8(whole8)})
    goals = {"1 bit": 10.0, "int8": 5.0}
    return [row(f"{name} layer, {batch} frames", value, goals[name]) for name, value in found.items()]


def whole(model: MaskEstimator, packed: Mapping[str, PackedNetwork], session: Any, x: Tensor) -> list[dict[str, Any]]:
    """The mask network, conversion of its input included."""
    array = x.numpy()
    calls: dict[str, Callable[[], object]] = {"torch": lambda: model.net(x), "int8 ONNX": lambda: session.run(array)}
    calls |= {f"{bits} packed": lambda p=p: p(x) for bits, p in packed.items()}  # type: ignore[misc]
    return [row(f"network, {name}, {len(x)} frames", value, 4.0) for name, value in faster(calls).items()]


def stream(folder: str) -> None:
    """Item 17: what streaming costs in quality, time and memory."""
    data, rows = SceneFolder(folder), []
    model = load_model()
    for every in (1, 4, 16):
        lost, spent, heard = [], 0.0, 0.0
        for i in range(min(len(data), 12)):
            scene = data[i]
            start = time.process_time()
            enhancer = StreamingEnhancer(model, MICS, scene.fs, update_every=every)
            voice = torch.from_numpy(np.concatenate([enhancer.process(scene.mix), enhancer.flush()]))
            spent, heard = spent + time.process_time() - start, heard + scene.mix.shape[1] / scene.fs
            batch = enhance(scene.mix, scene.fs, model=model, ref=0).audio
            lost.append(float(scores.si_sdr(batch, scene.speech[0]) - scores.si_sdr(voice, scene.speech[0])))
        rows.append(
            row(f"dB lost to the filter of the whole, every {every} frames", sum(lost) / len(lost), 2.0, most=True)
        )
        rows.append(row(f"real-time factor, every {every} frames", spent / heard, 0.1, most=True))
    rows += long_files(data[0].mix)
    record("speech_stream", rows, latency_samples=1024, scenes=min(len(data), 12), microphones=MICS)


def long_files(x: Tensor) -> list[dict[str, Any]]:
    """Memory and time of files of one and five minutes."""
    seconds, grown = [], []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (1, 5):
            source = Path(folder) / f"{minutes}.wav"
            files.write(source, x.repeat(1, -(-minutes * 60 * FS // x.shape[1]))[:, : minutes * 60 * FS], FS)
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            StreamingEnhancer(n_mics=MICS).enhance_file(source, Path(folder) / "out.wav", FS)
            seconds.append(time.process_time() - start)
            grown.append((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000)
    return [
        row("peak memory grown by 5 minutes over 1, MB", grown[1], 50.0, most=True),
        row("time of 5 minutes / 5 x time of 1", seconds[1] / (5 * seconds[0]), 1.1, most=True),
    ]


def masks(folder: str, networks: Mapping[str, MaskEstimator]) -> None:
    """Item 14: gain of MVDR and GEV-PAN, and the share of the ideal mask's."""
    data = SceneFolder(folder)
    found = {r["system"]: r for r in scores.compare(data, scores.systems(networks))}
    rows = []
    for name, r in found.items():
        ideal = found.get(f"ideal {name.split()[-1]}", found["ideal mvdr"])
        facts = {"system": name, "si_sdr": r["si_sdr"], "gain_db": r["gain"], "share": r["gain"] / ideal["gain"]}
        rows.append(facts | {"stoi": r["stoi"], "pesq": r["pesq"]})
    goal = "mvdr share >= 0.7; w1a8 >= 0.92 of fp32, w1a1 >= 0.85"
    settings = {k: v for k, v in data.settings.items() if k != "sentences"}
    record("speech_masks", rows, scenes=len(data), settings=settings, goal=goal)


def words(folder: str, networks: Mapping[str, MaskEstimator]) -> None:
    """Item 15: word error rate and STOI."""
    data = SceneFolder(folder)
    systems = {k: s for k, s in scores.systems(networks).items() if "gev" not in k and "blind" not in k}
    systems["voice alone"] = lambda scene: scene.speech[0]
    found = scores.compare(data, systems, sentences=data.settings["sentences"])
    rows = [
        {"system": r["system"], "wer": r["wer"], "stoi": r["stoi"], "pesq": r["pesq"], "gain_db": r["gain"]}
        for r in found
    ]
    record(
        "speech_words", rows, scenes=len(data), goal="enhanced <= 0.5 x noisy, STOI + 0.10, w1a8 within 0.05 of fp32"
    )


def main() -> None:
    """Run the part that is named."""
    torch.set_num_threads(1)
    part, *rest = sys.argv[1:] or ["beamformers"]
    named = dict(pair.split("=", 1) for pair in rest[1:])
    if part in ("masks", "words"):
        networks = {name: load_model(place) for name, place in named.items()} or {"built-in": load_model()}
        {"masks": masks, "words": words}[part](rest[0], networks)
    elif part == "stream":
        stream(rest[0])
    else:
        {"beamformers": beamformers, "speed": speed}[part]()


if __name__ == "__main__":
    main()
