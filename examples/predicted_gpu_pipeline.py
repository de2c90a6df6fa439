"""A pipeline plan whose stage costs come from a predicted GPU: which schedule wins where nobody has been?

With a predictor (`netfit gpu train`) its times are predictions; without one they are bounds of the data sheet.
"""

import argparse
from typing import Any

from netfit.pipeline import Network, StageCosts, compare, gpt, make
from netfit.targets.gpu import GPU, KernelPredictor


def main(
    gpu: str = "h100",
    devices: int = 4,
    microbatches: int = 8,
    link: str = "a100-ib",
    time: KernelPredictor | str | None = None,
) -> dict[str, Any]:
    """Cost every operator on the GPU, cut the network, rank schedules; returns the winner and its gain over 1F1B."""
    workload = gpt("gpt-1b", sequence=1024)
    table = GPU(gpu, time=time, precision="bf16").cost(workload)

    def cut(stages: int) -> StageCosts:
        return StageCosts.from_target(workload, table, stages=stages)

    schedules = [make(name, devices, microbatches) for name in ("1f1b", "gpipe", "interleaved", "zb-h1", "zb-v")]
    found = compare(schedules, cut, [Network.preset(link, devices), Network.preset("free", devices)])
    rows = [row for row in found.rows if row["network"] == link]
    best = min(rows, key=lambda row: row["simulated"])
    first = next(row for row in rows if row["schedule"] == "1f1b")
    result = {
        "source": table.source, "best": best["schedule"], "seconds": best["simulated"],
        "gain": first["simulated"] / best["simulated"],
        "stage_s": float(cut(devices).t_f.max()), "flips": found.verdicts(),
    }  # fmt: skip
    print("{source}: {best} takes {seconds:.4f} s a step, 1F1B {gain:.2f} times as long".format(**result))
    return result


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--gpu", default="h100")
    options.add_argument("--devices", type=int, default=4)
    options.add_argument("--microbatches", type=int, default=8)
    options.add_argument("--link", default="a100-ib")
    options.add_argument("--time", help="folder of a trained predictor")
    main(**vars(options.parse_args()))
