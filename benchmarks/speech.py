"""Beamformers beside peers, mask networks on unseen rooms, words, low-bit speed, streams; one thread.

``python -m benchmarks.speech beamformers|speed``, ``stream|hour FOLDER``, ``masks|words FOLDER [NAME=NETWORK ...]``

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
from netfit.kernels.linear import Codes, IntegerLinear
from netfit.speech import (
    MaskEstimator,
    PackedNetwork,
    SceneFolder,
    StreamingEnhancer,
    enhance,
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
        for batch in (1, 4, 16, 64):
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
    """A dense layer of 1024 x 1024, from float32 to float32: rounding of its input included."""
    g = torch.Generator().manual_seed(0)
    dense, x, one = nn.Linear(n, n), torch.randn(batch, n, generator=g), torch.ones(n)
    signs = torch.where(torch.randn(n, n, generator=g) > 0, 1, -1).to(torch.int8)
    whole = torch.randint(-127, 128, (n, n), generator=g).to(torch.int8)
    made = {
        "w1a1": IntegerLinear(signs, one, one, Codes(1, 0, 1)),
        "w1a8": IntegerLinear(signs, one, one, Codes(0.02, 128, 255)),
        "int8": IntegerLinear(whole, one, one, Codes(0.02, 128, 255)),
    }
    found = faster({"torch": lambda: dense(x), **{k: lambda layer=v: layer(x) for k, v in made.items()}})  # type: ignore[misc]
    goals = {"w1a1": 10.0, "w1a8": 5.0, "int8": 5.0}
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
    for every in (1, 4):
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
    record("speech_stream", rows, latency_samples=1024, scenes=min(len(data), 12), microphones=MICS)


def hour(scenes: str) -> None:
    """Item 17: a minute read in blocks of two sizes, and an hour, by repetition of a scene: memory and time."""
    x = SceneFolder(scenes)[0].mix
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short, long = (repeated(x, minutes, folder / f"{minutes}.wav") for minutes in (1, 60))
        seconds, heard = {}, {}
        for part, source, block in (("minute", short, FS), ("small", short, 160), ("hour", long, FS)):
            before, start = peak_mb(), time.process_time()
            StreamingEnhancer(n_mics=MICS).enhance_file(source, folder / f"{part}.wav", block)
            seconds[part], grown = time.process_time() - start, peak_mb() - before
            heard[part] = (folder / f"{part}.wav").read_bytes()[: 60 * 2 * FS]
    changed = differing(heard["hour"][:-FS], heard["minute"])  # the minute's last frames see its end
    rows = [
        row("real-time factor of an hour", seconds["hour"] / 3600, 0.1, most=True),
        row("peak memory grown by the hour over the minute, MB", grown, 50.0, most=True),
        row("time of the hour / 60 x time of the minute", seconds["hour"] / (60 * seconds["minute"]), 1.1, most=True),
        row("bytes that differ, blocks of 160 and 16000", differing(heard["small"], heard["minute"]), 0, most=True),
        row("bytes that differ, first minute of the hour", changed, 0, most=True),
    ]
    record("speech_hour", rows, microphones=MICS)


def repeated(x: Tensor, minutes: int, path: Path) -> Path:
    """A file that repeats a recording."""
    soundfile = importlib.import_module("soundfile")
    left = minutes * 60 * FS
    with soundfile.SoundFile(path, "w", FS, len(x), "PCM_16") as file:
        while left:
            file.write(x[:, :left].T.numpy())
            left -= min(left, x.shape[1])
    return path


def differing(a: bytes, b: bytes) -> int:
    """Bytes behind the header that differ, over the length of the shorter."""
    return sum(p != q for p, q in zip(a[44:], b[44:], strict=False))


def peak_mb() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


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
    elif part in ("stream", "hour"):
        {"stream": stream, "hour": hour}[part](rest[0])
    else:
        {"beamformers": beamformers, "speed": speed}[part]()


if __name__ == "__main__":
    main()
