"""From a run directory to a report."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic

from netfit import io
from netfit.errors import ArtifactError

from ._analog import analog_report
from ._analog_hardware import analog_hardware_report
from ._bayes import bayes_report
from ._compress import compress_report
from ._detect import detect_eval_report, detect_report
from ._generic import generic_report
from ._gpu import gpu_report
from ._memory import memory_report
from ._model import Report
from ._pipeline import pipeline_report
from ._reproduce import reproduce_section
from ._roofline import roofline_report
from ._speech import speech_eval_report, speech_report
from ._structure import bench_report, structure_report
from ._systolic import systolic_report
from ._tan import tan_report
from ._tradeoff import tradeoff_report
from ._tune import embed_report, tune_network_report, tune_report

__all__ = ["from_run"]

# A job with a report of its own is one line here; every other kind gets its result as tables.
_KINDS: dict[str, Callable[[dict[str, Any]], Report]] = {
    "analog": analog_report,
    "analog-hardware": analog_hardware_report,
    "bayes": bayes_report,
    "compress": compress_report,
    "detect": detect_report,
    "detect-eval": detect_eval_report,
    "embed": embed_report,
    "gpu": gpu_report,
    "memory": memory_report,
    "pipeline": pipeline_report,
    "roofline": roofline_report,
    "speech": speech_report,
    "speech-eval": speech_eval_report,
    "structure": structure_report,
    "structure-bench": bench_report,
    "systolic": systolic_report,
    "tan": tan_report,
    "tradeoff": tradeoff_report,
    "tune": tune_report,
    "tune-network": tune_network_report,
}


def from_run(run_dir: str | Path) -> Report:
    """Build the report of a finished run from its ``result.json`` (and ``peers.json``, where a benchmark left one).

    Args:
        run_dir: the run's directory.

    Raises:
        ArtifactError: there is no result yet (the message tells the run's status), or it cannot be read.
    """
    path = Path(run_dir) / "result.json"
    if not path.is_file():
        raise ArtifactError(f"{path.parent} holds no result.json: {_status(path.parent)}")
    result = io.read_json(path)
    if not isinstance(result, dict):
        raise ArtifactError(f"{path} holds a {type(result).__name__}, not the result of a run; run the job again")
    if isinstance(result.get("host"), str) and (machine := _machine(path.parent)):
        result["host"] = machine
    peers = path.with_name("peers.json")
    if peers.is_file():
        result["peers"] = io.read_json(peers)
    try:
        report = _KINDS.get(str(result.get("kind")), generic_report)(result)
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        found = f"{first['input']!r:.60}"
        more = f" (and {e.error_count() - 1} more)" if e.error_count() > 1 else ""
        raise ArtifactError(f"{path}: {where} is {found}: {first['msg']}{more}; run the job again") from e
    how = reproduce_section(_run_json(path.parent))
    if how.blocks and how.title not in [section.title for section in report.sections]:
        report = replace(report, sections=(*report.sections, how))
    return report


def _run_json(run_dir: Path) -> dict[str, Any]:
    run = run_dir / "run.json"
    facts = io.read_json(run) if run.is_file() else {}
    return facts if isinstance(facts, dict) else {}


def _machine(run_dir: Path) -> dict[str, Any]:
    """The result knows its machine by an id; the fingerprint in run.json tells which machine that is."""
    fingerprint = _run_json(run_dir).get("fingerprint")
    if not isinstance(fingerprint, dict):
        return {}
    return {k: v for k, v in fingerprint.items() if k not in ("netfit", "packages") and v not in (None, {})}


def _status(run_dir: Path) -> str:
    if not (run_dir / "run.json").is_file():
        return "this is not a run directory (no run.json either)"
    status = _run_json(run_dir).get("status", "unknown")
    return f"the run's status is {status!r}; it writes its result when it is done"
