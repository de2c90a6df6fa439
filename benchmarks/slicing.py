"""A pruned network from a plan against a rebuild by torch-pruning, ResNet-18 (compress.md, acceptance 10)."""

import copy
import time
import warnings

import torch
from torch import nn

from benchmarks._common import interleave, median_ratio, record
from netfit.compress import importance, plan_channels, slice_model
from netfit.models import build

LIMIT_S, LIMIT_RATIO = 0.050, 5.0


def main() -> None:
    """Print and keep one row for each fraction of channels kept; fail above the limits."""
    import torch_pruning

    torch.set_num_threads(1)
    model, x = build("resnet18", num_classes=10, in_shape=(3, 32, 32)).eval(), torch.randn(1, 3, 32, 32)
    plan = plan_channels(model, x)
    scores = importance(model, plan)
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]

    def rebuild(fraction: float) -> None:
        twin = copy.deepcopy(model)
        ignored = [m for m in twin.modules() if isinstance(m, nn.Linear)][-len(head) :]
        criterion = torch_pruning.importance.GroupMagnitudeImportance(p=1)
        torch_pruning.pruner.BasePruner(twin, x, criterion, pruning_ratio=1 - fraction, ignored_layers=ignored).step()

    rows = []
    for fraction in (0.9, 0.5, 0.25):
        keep = {g.name: g.fit(fraction) for g in plan.free}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds = interleave(
                {
                    "netfit": lambda keep=keep: slice_model(model, plan, keep, scores),
                    "torch-pruning": lambda fraction=fraction: rebuild(fraction),
                },
                repeats=15,
            )
        start = time.process_time()
        for _ in range(10):
            slice_model(model, plan, keep, scores)
        cpu = (time.process_time() - start) / 10
        ratio = median_ratio(seconds["torch-pruning"], seconds["netfit"])
        rows.append({"kept": fraction, "netfit_cpu_s": cpu, "torch_pruning_over_netfit": ratio.median})
    record("slicing", rows, network="resnet18", limit_cpu_s=LIMIT_S, limit_ratio=LIMIT_RATIO)
    assert all(row["netfit_cpu_s"] <= LIMIT_S for row in rows), "slicing takes too long"
    assert all(row["torch_pruning_over_netfit"] >= LIMIT_RATIO for row in rows), "slicing is not faster enough"


if __name__ == "__main__":
    main()
