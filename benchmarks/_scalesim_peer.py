"""Runs inside the peers' environment: cycles of matrix products by SCALE-Sim, as JSON on standard output.

Reads ``{"rows", "cols", "dataflow", "gemms": [[m, n, k], ...]}`` from standard input. One product at a time, so that
each has its own CPU seconds.
"""

import contextlib
import csv
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scalesim.memory import double_buffered_scratchpad_mem, read_buffer
from scalesim.scale_sim import scalesim

CONFIG = """[general]
run_name = peer
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {cols}
IfmapSramSzkB: 1024
FilterSramSzkB: 1024
OfmapSramSzkB: 1024
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: {dataflow}
Bandwidth: 10
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
LAYOUT = "Layer name, IFMAP Height Intraline Factor, IFMAP Width Intraline Factor,\n"


def _max(*values: Any) -> Any:
    """Since 2.4, NumPy refuses int() of an array with one number, which SCALE-Sim calls on what max() gives."""
    return np.asarray(max(*values)).item()


double_buffered_scratchpad_mem.max = read_buffer.max = _max


def simulate(folder: Path, rows: int, cols: int, dataflow: str, gemm: list[int]) -> dict[str, float]:
    """Cycles, CPU seconds and buffer accesses of one product."""
    m, n, k = gemm
    config, topology, layout = folder / "a.cfg", folder / "t.csv", folder / "l.csv"
    config.write_text(CONFIG.format(rows=rows, cols=cols, dataflow=dataflow))
    topology.write_text(f"Layer, M, N, K,\nproduct, {m}, {n}, {k},\n")
    layout.write_text(LAYOUT + "product, " + "1, " * 24 + "\n")
    before = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        simulation = scalesim(
            save_disk_space=True,
            verbose=False,
            config=str(config),
            topology=str(topology),
            layout=str(layout),
            input_type_gemm=True,
        )
        simulation.run_scale(top_path=str(folder))
    seconds = time.process_time() - before
    cycles = _row(folder, "COMPUTE_REPORT.csv")["Total Cycles"]
    accesses = _row(folder, "DETAILED_ACCESS_REPORT.csv")
    reads = {name: float(accesses[f"SRAM {kind}"]) for name, kind in _ACCESSES.items()}
    return {"cycles": int(float(cycles)), "seconds": seconds, **reads}


_ACCESSES = {"act_loads": "IFMAP Reads", "weight_loads": "Filter Reads", "result_stores": "OFMAP Writes"}


def _row(folder: Path, name: str) -> dict[str, str]:
    with next(folder.rglob(name)).open() as file:
        row = next(csv.DictReader(file))
    return {key.strip(): value.strip() for key, value in row.items() if key and value}


def main() -> None:
    """Answer the question on standard input."""
    question = json.load(sys.stdin)
    for gemm in question["gemms"]:
        with tempfile.TemporaryDirectory() as folder:
            found = simulate(Path(folder), question["rows"], question["cols"], question["dataflow"], gemm)
        print(json.dumps({"gemm": gemm, **found}), flush=True)


if __name__ == "__main__":
    main()
