"""The pages of `netfit speech enhance` and `netfit speech eval`: hear it, see it, and the table."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from . import plots
from ._blocks import figure, pairs
from ._format import MISSING
from ._model import Audio, Block, Note, Report, Section, Table

__all__ = ["speech_eval_report", "speech_report"]

_DB = (-50.0, -40.0, -30.0, -20.0, -10.0)
_SHARE = (0.1, 0.3, 0.5, 0.7, 0.9)


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Picture(_Part):
    """A quantity over time (s) and frequency (Hz), one row a frequency."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]


class Row(_Part):
    """One system of the table."""

    system: str
    si_sdr: float
    gain: float
    pesq: float | None = None
    stoi: float | None = None
    wer: float | None = None
    skipped: dict[str, str] = {}


class SpeechResult(_Part):
    """What both commands leave."""

    sounds: dict[str, str]
    pictures: dict[str, Picture]
    beamformer: str = ""
    postfilter: str = ""
    microphones: int = 0
    seconds: float = 0.0
    reference: int = 0
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scenes_n: int = 0
    rows: tuple[Row, ...] = ()


def speech_report(result: dict[str, Any]) -> Report:
    """A page from the result of `netfit speech enhance --run`.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = SpeechResult.model_validate(result)
    verdict = f"{r.seconds:.1f} s of voice from {r.microphones} microphones by {r.beamformer}."
    facts = pairs({"beamformer": r.beamformer, "postfilter": r.postfilter, "sounds like microphone": r.reference})
    warnings: tuple[Block, ...] = tuple(Note("warning", fault) for fault in r.faults)
    notes: tuple[Block, ...] = tuple(Note("info", note) for note in r.notes)
    return Report("One voice", verdict, (_heard(r), Section("How", blocks=(*warnings, *notes, facts))))


def speech_eval_report(result: dict[str, Any]) -> Report:
    """A page from the result of `netfit speech eval`.

    Raises:
        pydantic.ValidationError: a value is missing or has the wrong type.
    """
    r = SpeechResult.model_validate(result)
    ideal = next((row.gain for row in r.rows if row.system == "ideal mvdr"), None)
    found = next(
        (row for row in r.rows if row.system.endswith(" mvdr") and row.system[:5] not in ("blind", "ideal")), None
    )
    verdict = f"{r.scenes_n} scenes."
    if found is not None and ideal:
        verdict = (
            f"{found.system}: {found.gain:+.1f} dB over the noisy microphone, {100 * found.gain / ideal:.0f} % of what "
        )
        verdict += f"the ideal mask brings, on {r.scenes_n} scenes."
    return Report("Mask networks compared", verdict, (_scores(r), _heard(r)))


def _scores(r: SpeechResult) -> Section:
    forms = {"si_sdr": "{:.1f}", "gain": "{:+.1f}", "pesq": "{:.2f}", "stoi": "{:.3f}", "wer": "{:.1%}"}
    rows = []
    for row in r.rows:
        values = row.model_dump()
        cells = (form.format(values[k]) if values[k] is not None else MISSING for k, form in forms.items())
        rows.append((row.system, *cells))
    columns = ("system", "SI-SDR dB", "gain dB", "PESQ", "STOI", "WER")
    skipped = sorted({reason for row in r.rows for reason in row.skipped.values()})
    notes: tuple[Block, ...] = tuple(Note("info", reason) for reason in skipped)
    return Section(
        "Scores",
        "Means over all scenes, against the reverberant voice alone.",
        (Table(columns, tuple(rows), "lrrrrr"), *notes),
    )


def _heard(r: SpeechResult) -> Section:
    names = {"before": "Before: one microphone", "after": "After: the voice"}
    blocks: list[Block] = [Audio(r.sounds[key], caption) for key, caption in names.items() if key in r.sounds]
    for key, caption in names.items():
        if key in r.pictures:
            blocks.append(_picture(r.pictures[key], f"{caption}, dB below the loudest spot", _DB, "dB"))
    if "mask" in r.pictures:
        blocks.append(_picture(r.pictures["mask"], "Mask: share of speech the network sees", _SHARE, ""))
    return Section("Hear and see it", blocks=tuple(blocks))


def _picture(p: Picture, caption: str, levels: tuple[float, ...], unit: str) -> Block:
    labels = [f"≤ {level:g} {unit}".strip() for level in levels] + ["more"]

    def plot() -> str:
        return plots.heat_map(p.values, p.x, p.y, levels=levels, labels=labels, xlabel="s", ylabel="Hz")

    return figure(caption, f"{caption}, over {p.x[-1]:.1f} s and {p.y[-1]:.0f} Hz.", plot)
