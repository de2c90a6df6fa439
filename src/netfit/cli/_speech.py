"""``netfit speech``: enhance recordings, simulate rooms, train mask networks and compare them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._options import Count, Json, Seed
from ._output import Output, answer, table, write_page

if TYPE_CHECKING:
    from netfit.speech import MaskEstimator

__all__ = ["enhance", "evaluate", "simulate", "train"]

RunDir = Annotated[Path | None, Parameter(help="Run directory: keeps the numbers and a page that plays them.")]
ModelDir = Annotated[
    Path | None, Parameter(help="Mask network made by netfit speech train; the built-in one by default.")
]
Names = Annotated[str, Parameter(help="Folders of recordings or names, separated by commas.")]
Noise = Annotated[str, Parameter(help="Folders, babble, white, pink, brown, hum, clatter, wind.")]
Out = Annotated[Path, Parameter(name=["--out", "-o"], help="Folder to write.")]
Range = Annotated[str, Parameter(help="LOW,HIGH.")]
_HEARD_S = 10  # of a streamed file, in which faults of microphones are looked for


def enhance(
    source: Path, target: Path, /, *,
    beamformer: Literal["mvdr", "gev", "none"] = "mvdr",
    postfilter: Literal["auto", "pan", "ban", "mask", "none"] = "auto",
    mask: Annotated[Literal["model", "blind"], Parameter(help="blind: a rule instead of the network.")] = "model",
    model: ModelDir = None,
    ref: Annotated[int | None, Parameter(help="Microphone to sound like, from 0; the best one by default.")] = None,
    stream: Annotated[bool, Parameter(negative="", help="In constant memory, as if it were heard now.")] = False,
    block_ms: Annotated[float, Parameter(help="Read at a time with --stream.")] = 32.0,
    run: RunDir = None, seed: Seed = 0, as_json: Json = False,
) -> Output:  # fmt: skip
    """Several microphones in, one voice out."""
    how = {"beamformer": beamformer, "postfilter": postfilter, "mask": mask, "ref": ref}
    if stream and (mask != "model" or run is not None):
        raise ConfigError("--stream uses the mask network and keeps no recording in memory: leave out --mask and --run")
    started = time.perf_counter()
    facts = _streamed(source, target, how, model, block_ms) if stream else _whole(source, target, how, model, run, seed)
    seconds = time.perf_counter() - started
    facts |= {"wall_s": seconds, "real_time_factor": seconds / facts["seconds"]}
    lines = [f"{target}: {facts['seconds']:.1f} s of voice from {facts['microphones']} microphones by {beamformer}"]
    lines += [f"warning: {fault}" for fault in facts.get("faults", ())] + list(facts.get("notes", ()))
    lines.append(
        f"{facts['real_time_factor']:.3f} of real time" + (f", latency {facts['latency_ms']:.0f} ms" if stream else "")
    )
    return answer(as_json, facts, "\n".join(lines))


def _network(model: Path | None) -> "MaskEstimator":
    from netfit.speech import load_model

    return load_model(model)


def _streamed(
    source: Path, target: Path, how: Mapping[str, Any], model: Path | None, block_ms: float
) -> dict[str, Any]:
    from netfit.speech import StreamingEnhancer, check_microphones, files

    if not block_ms > 0:
        raise ConfigError(f"--block-ms {block_ms} must be positive")
    channels, _, fs = files.properties(source)
    enhancer = StreamingEnhancer(
        _network(model), channels, fs, beamformer=how["beamformer"], postfilter=how["postfilter"], ref=how["ref"] or 0
    )
    samples = enhancer.enhance_file(source, target, max(1, int(block_ms / 1000 * fs)))
    heard = next(files.blocks(source, _HEARD_S * fs))  # a stream goes on with what there is, but says so
    faults = [str(fault) for fault in check_microphones(heard, fs)]
    latency = 1000 * enhancer.latency_samples / fs
    return {"microphones": channels, "seconds": samples / fs, "latency_ms": latency, "faults": faults, **how}


def _whole(
    source: Path, target: Path, how: Mapping[str, Any], model: Path | None, run: Path | None, seed: int
) -> dict[str, Any]:
    from netfit.runs import Run
    from netfit.speech import enhance as work
    from netfit.speech import files

    network = _network(model) if how["mask"] == "model" else None
    size = {"fft": network.n_fft, "hop": network.n_fft // 4} if network else {}
    ref = "auto" if how["ref"] is None else how["ref"]
    made = work(
        source,
        beamformer=how["beamformer"],
        postfilter=how["postfilter"],
        mask=how["mask"],
        model=network,
        ref=ref,
        **size,
    )
    files.write(target, made.audio, made.fs)
    facts = {**made.report, "microphones": len(made.channels), "seconds": len(made.audio) / made.fs}
    if run is not None:
        with Run.open(
            run, "speech-enhance", {"source": str(source), "model": str(model or "built in"), **how}, seed
        ) as opened:
            shown = made.page(files.read(source, made.fs)[0][made.reference])
            opened.write_result({"kind": "speech", **facts, **shown})
        write_page(run)
    return facts


def simulate(
    *, speech: Names, out: Out, noise: Noise = "babble,pink,hum,clatter",
    n: Annotated[Count, Parameter(name=["--scenes", "-n"], help="Scenes.")] = 100,
    array: Literal["tablet6", "linear4", "circle8"] = "tablet6",
    rt60: Range = "0.2,0.4", snr: Range = "-5,10", seconds: float = 4.0,
    texts: Annotated[bool, Parameter(negative="", help="A sentence with known words a scene.")] = False,
    seed: Seed = 0, as_json: Json = False,
) -> Output:  # fmt: skip
    """Make recordings whose parts are known."""
    from netfit.io import read_json, write_json
    from netfit.speech import SceneFolder, Scenes

    settings = {"speech": speech, "noise": noise, "n": n, "array": array, "rt60": rt60, "snr": snr, "seconds": seconds}
    settings |= {"texts": texts, "seed": seed}
    scenes = Scenes(speech, noise, n, array, _pair("--rt60", rt60), _pair("--snr", snr), seconds, texts, seed=seed)
    part = out / "part.json"  # what there is of an interrupted simulation
    kept: Any = read_json(part) if part.is_file() else {"settings": settings, "scenes": []}
    if kept["settings"] != settings or (out / "scenes.json").exists():
        raise ConfigError(f"{out} holds other scenes: name another folder")
    for i in range(len(kept["scenes"]), n):
        kept["scenes"].append(SceneFolder.keep(out, i, scenes[i]))
        write_json(part, kept)
    SceneFolder.finish(out, kept["scenes"], settings | {"sentences": scenes.sentences})
    part.unlink()
    return answer(as_json, {"out": out, **settings}, f"{n} scenes in {out}")


def train(
    scenes: Path, /, *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help="Folder to write; RUN/model by default.")] = None,
    bits: Annotated[str, Parameter(help="fp32, int8, w4a8, w2a8, w1a8, w1a2, w1a1, or a policy file.")] = "w1a8",
    features: Annotated[str, Parameter(help="magnitude, eigen, or both.")] = "magnitude,eigen",
    hidden: Count = 512, epochs: Count = 12, low_epochs: Count = 8,
    start: Annotated[Path | None, Parameter(help="Full-precision network to go on from.")] = None,
    run: RunDir = None, seed: Seed = 0, as_json: Json = False,
) -> Output:  # fmt: skip
    """Train a mask network on simulated scenes."""
    from netfit.runs import Run
    from netfit.speech import SceneFolder, load_model, save_model
    from netfit.speech import train as work
    from netfit.surgery import Policy

    from ._progress import progress

    chosen: Any = Policy.load(bits) if Path(bits).is_file() else bits
    data = SceneFolder(scenes)
    arguments = {"scenes": str(scenes), "bits": bits, "features": features, "hidden": hidden, "epochs": epochs}
    arguments |= {"low_epochs": low_epochs, "start": None if start is None else str(start)}
    with Run.open(run, "speech-train", arguments, seed) as opened, progress(1.0) as report:
        place = out or opened.path / "model"
        model = work(
            data, bits=chosen, features=tuple(features.split(",")), hidden=hidden, epochs=epochs, low_epochs=low_epochs,
            seed=seed, start=None if start is None else load_model(start), folder=opened.path / "checkpoints",
            progress=lambda facts: report(facts.pop("part"), facts),
        )  # fmt: skip
        save_model(model, place, {"trained_on": data.settings, **arguments, "seed": seed})
        size = sum(file.stat().st_size for file in place.iterdir())
        facts = {"model": str(place), "bytes": size, "scenes_n": len(data)}
        opened.write_result({"kind": "speech-train", **facts})
    text = f"{place}: {size / 1000:.0f} kB at {bits}, trained on {len(data)} scenes"
    return answer(as_json, facts | {"run": opened.path}, text)


def evaluate(
    scenes: Path, models: Annotated[Sequence[Path], Parameter(help="Networks; the built-in by default.")] = (), /, *,
    wer: Annotated[bool, Parameter(negative="", help="Count word errors too; the scenes must have texts.")] = False,
    run: RunDir = None, seed: Seed = 0, as_json: Json = False,
) -> Output:  # fmt: skip
    """Compare networks, a rule and the ideal mask on simulated scenes."""
    from netfit.runs import Run
    from netfit.speech import SceneFolder, scores
    from netfit.speech import enhance as work

    data = SceneFolder(scenes)
    if wer and not data.settings.get("sentences"):
        raise ConfigError(f"the scenes in {scenes} have no texts: simulate them with --texts")
    networks = {place.name: _network(place) for place in models} or {"built-in": _network(None)}
    arguments = {"scenes": str(scenes), "models": [str(m) for m in models], "wer": wer}
    with Run.open(run, "speech-eval", arguments, seed) as opened:
        rows = scores.compare(data, scores.systems(networks), sentences=data.settings["sentences"] if wer else ())
        network, first = next(iter(networks.values())), data[0]
        made = work(first.mix, first.fs, model=network, ref=0, fft=network.n_fft, hop=network.n_fft // 4)
        opened.write_result({"kind": "speech-eval", "scenes_n": len(data), "rows": rows, **made.page(first.mix[0])})
    write_page(opened.path)
    text = f"{_listed(rows)}\nreport: {opened.path / 'report.html'}"
    return answer(as_json, {"run": opened.path, "rows": rows}, text)


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    forms = {"si_sdr": "{:.1f}", "gain": "{:+.1f}", "pesq": "{:.2f}", "stoi": "{:.3f}", "wer": "{:.1%}"}
    cells = [
        (r["system"], *(form.format(r[k]) if r[k] is not None else "-" for k, form in forms.items())) for r in rows
    ]
    text = table(("system", "SI-SDR dB", "gain dB", "PESQ", "STOI", "WER"), cells)
    reasons = sorted({reason for r in rows for reason in r["skipped"].values()})
    return "\n".join([text, *(f"skipped: {reason}" for reason in reasons)])


def _pair(option: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r}: allowed is LOW,HIGH, such as 0.2,0.4") from None
    return low, high
