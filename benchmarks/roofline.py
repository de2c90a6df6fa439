"""Which bound holds the convolutions and products of ResNet-18, for our kernels, torch's and a plain loop nest.

Every shape is timed in several passes over the whole list, as CPU time of one thread, and its fastest pass counts: on
a shared machine a pass can only be slowed down. The bounds come from peaks that are measured by the same command.
"""

from collections.abc import Iterator

import torch

from benchmarks._common import record
from benchmarks.systolic import resnet18
from netfit.targets.roofline import Layer, Peaks, explain_layers, measure_peaks
from netfit.workload import Workload

PASSES, BUDGET_S, NAIVE_BUDGET_S = 6, 0.3, 0.2
MOST_ABOVE, LEAST_SHARE, LEAST_PART = 1.05, 0.6, 0.8
Key = tuple[str, str, str, str]


def passes(workload: Workload, peaks: Peaks) -> Iterator[Layer]:
    """All implementations; the naive nest of each layer once, because it is slow and only itself."""
    for number in range(PASSES):
        for as_gemm in (False, True):
            yield from explain_layers(
                workload, peaks, implementations=("netfit", "torch"), as_gemm=as_gemm, budget_s=BUDGET_S, seed=number
            )
    yield from explain_layers(workload, peaks, implementations=("naive",), budget_s=NAIVE_BUDGET_S)


def fastest(found: Iterator[Layer]) -> dict[Key, Layer]:
    """The fastest pass of each."""
    best: dict[Key, Layer] = {}
    for layer in found:
        key = layer.name, layer.product, layer.implementation, layer.precision
        if key not in best or layer.explanation.measured_s < best[key].explanation.measured_s:
            best[key] = layer
            print(f"{' '.join(key)}: {layer.explanation.text}", flush=True)
    return best


def main() -> None:
    """Print and keep one row per kernel, and the two figures; fail where one is missed."""
    torch.set_num_threads(1)
    peaks = measure_peaks(fresh=True)
    best = fastest(passes(resnet18(), peaks))
    rows, tuned = [], []
    for (name, product, implementation, precision), layer in best.items():
        found = layer.explanation
        rows.append(
            {
                "layer": name, "product": product, "kernel": implementation, "precision": precision,
                "us": 1e6 * found.measured_s, "GOP/s": 2e-9 * layer.shape.macs / found.measured_s,
                "bound": found.bound, "explains": found.share,
                **{key: found.bounds.get(key, 0.0) / found.measured_s for key in ("compute", "latency", *peaks.read)},
            }
        )  # fmt: skip
        if implementation == "netfit":
            tuned.append(found.share)
    highest = max(row["explains"] for row in rows)
    part = sum(share >= LEAST_SHARE for share in tuned) / len(tuned)
    record(
        "roofline", rows, highest_share=highest, highest_allowed=MOST_ABOVE, tuned=len(tuned), explained=part,
        explained_goal=LEAST_PART, peaks=peaks.to_json(),
    )  # fmt: skip
    assert highest <= MOST_ABOVE, f"a bound is {highest:.2f} of the measured time, allowed {MOST_ABOVE}"
    assert part >= LEAST_PART, (
        f"{part:.0%} of the tuned kernels are explained to {LEAST_SHARE:.0%}, goal {LEAST_PART:.0%}"
    )


if __name__ == "__main__":
    main()
