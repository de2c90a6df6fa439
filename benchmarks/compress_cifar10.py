"""The main job on a real network: ResNet-20 on CIFAR-10, compressed to a quarter of its measured fp32 latency.

Takes an hour and a half from nothing on one core; an interrupted run goes on, and a finished one is only read. The
yardstick is the fp32 network in the faster of OpenVINO and ONNX Runtime, one thread, batch 1. CIFAR-10 of the data
folder is JPEG-recompressed: compare these accuracies with each other, not with published ones.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks._common import record

RUN = Path(os.environ.get("NETFIT_CIFAR_RUN", "runs/cifar10"))
COMMAND = "compress resnet20 --data cifar10 --target host --latency 0.25 --epochs 30"


def main() -> None:
    """Do or finish the job, then record what it found."""
    if not (RUN / "result.json").exists():
        subprocess.run([sys.executable, "-m", "netfit", *COMMAND.split(), "--run", str(RUN)], check=False)
    result = json.loads((RUN / "result.json").read_text())
    base, final = result["base"], result["final"]
    lost = 100 * (base["accuracy"] - final["accuracy_deployed"])
    other = len(result["substituted"])
    rows = [
        {"figure": "latency / fp32", "measured": final["ratio"], "goal": "<= 0.25", "held": final["ratio"] <= 0.25},
        {"figure": "points lost (deployed)", "measured": round(lost, 2), "goal": "<= 1.0", "held": lost <= 1.0},
        {"figure": "layers not run as asked", "measured": other, "goal": "0", "held": other == 0},
        {"figure": "test accuracy before", "measured": base["accuracy"], "goal": "", "held": ""},
        {"figure": "test accuracy after, torch", "measured": final["accuracy"], "goal": "", "held": ""},
        {"figure": "test accuracy after, deployed", "measured": final["accuracy_deployed"], "goal": "", "held": ""},
    ]  # fmt: skip
    record(
        "compress_cifar10",
        rows,
        command=result["commands"][0],
        yardstick=result["yardstick"],
        interval=[final["ratio_lo"], final["ratio_hi"]],
        noisy=final["noisy"],
        seed=result["seed"],
        images=result["images"],
    )


if __name__ == "__main__":
    main()
