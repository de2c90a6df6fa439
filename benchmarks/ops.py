"""Generated operators against torch, untuned and on one thread: ``python -m benchmarks.ops``.

The least time of interleaved repeats counts; everything else of the machine only makes calls longer.
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks._common import interleave, record
from netfit.compile import ops

REPEATS = 30
GEMMS = ((960, 960, 960), (480, 480, 480), (192, 192, 192), (12, 960, 960), (333, 517, 129), (64, 3136, 576))
INT8 = ((480, 480, 480), (64, 784, 1152), (12, 960, 960))


def _ratio(candidates: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least seconds of every candidate over that of the first."""
    least = {name: min(times) for name, times in interleave(candidates, REPEATS, warmup=2).items()}
    ours = next(iter(least.values()))
    return {name: seconds / ours for name, seconds in least.items()} | {"seconds": ours}


def fp32() -> list[dict[str, Any]]:
    """Products of matrices against torch."""
    rows = []
    for m, n, k in GEMMS:
        w, x = torch.randn(m, k), torch.randn(k, n)
        kernel, given = ops.Kernel(ops.Gemm.of(m, n, k)).pack(w[:, :, None, None]), x[None, :, None]
        found = _ratio({"ours": lambda f=kernel, x=given: f(x), "torch": lambda w=w, x=x: w @ x})
        rows.append(
            {"what": f"fp32 {m}x{n}x{k}", "us": 1e6 * found["seconds"], "against": "torch.mm", "times": found["torch"]}
        )
    return rows


def narrow() -> list[dict[str, Any]]:
    """int8 against torch, bits against our int8."""
    rows = []
    for m, n, k in INT8:
        w, x = (torch.randint(-128, 128, shape, dtype=torch.int8) for shape in ((m, k), (k, n)))
        kernel, given = ops.Kernel(ops.Gemm.of(m, n, k, "int8")).pack(w[:, :, None, None]), x[None, :, None]
        calls: dict[str, Callable[[], object]] = {"ours": lambda f=kernel, x=given: f(x)}
        if m > 16:  # torch._int_mm wants more than 16 rows
            calls["torch"] = lambda w=w, x=x: torch._int_mm(w, x)
        codes = given.to(torch.uint8)
        for planes in (1, 2):
            bits = ops.Kernel(ops.Gemm.of(m, n, k, "bits", planes)).pack(w[:, :, None, None].sign())
            calls[f"bits{planes}"] = lambda f=bits, x=codes: f(x)
        found = _ratio(calls)
        name = f"int8 {m}x{n}x{k}"
        if "torch" in found:
            rows.append(
                {"what": name, "us": 1e6 * found["seconds"], "against": "torch._int_mm", "times": found["torch"]}
            )
        for planes in (1, 2):
            us, ratio = 1e6 * found["seconds"] * found[f"bits{planes}"], 1 / found[f"bits{planes}"]
            rows.append({"what": f"bits{planes} {m}x{n}x{k}", "us": us, "against": "our int8", "times": ratio})
    return rows


def gaussian() -> list[dict[str, Any]]:
    """A probabilistic dense layer against the deterministic one and against composed torch."""
    rows = []
    for batch, inside, out in ((128, 784, 128), (1, 784, 100)):
        op = ops.PfpDense.of(batch, inside, out)
        xm, wm = torch.randn(batch, inside), torch.randn(out, inside)
        x, w = torch.stack([xm, xm**2 + 0.1]), torch.stack([wm, wm**2 + 0.1])
        kernel = ops.Kernel(op).pack(w[..., None, None])
        means, seconds = wm.T.contiguous(), w[1].T.contiguous()

        def composed(x: Any = x, a: Any = means, b: Any = seconds) -> Any:
            mean = x[0] @ a
            return mean, x[1] @ b - (x[0] ** 2) @ (a**2) + mean**2

        given = x[..., None, None]
        found = _ratio(
            {"ours": lambda f=kernel, x=given: f(x), "mm": lambda a=xm, b=means: a @ b, "composed": composed}
        )
        for name in ("mm", "composed"):
            what = {"mm": "deterministic torch.mm", "composed": "composed torch"}[name]
            rows.append({"what": op.name, "us": 1e6 * found["seconds"], "against": what, "times": found[name]})
    return rows


def main() -> None:
    """Print and keep how many times as long the others take."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record("ops", [*fp32(), *narrow(), *gaussian()], repeats=REPEATS, note="times: the other over ours, least of each")


if __name__ == "__main__":
    main()
